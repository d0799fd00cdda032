/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the registry's lock is held for the whole time, and distro.json is written
 * last.  A distribution that was interrupted is not listed; the next installation removes its
 * folder (tree_sweep), through the link where it lies elsewhere. */
#include "disk/install.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "config/config.h"
#include "config/work.h"
#include "disk/form.h"
#include "kit/runtime_kit.h"
#include "tree/tree.h"

int install_check_name(const struct state_dirs *dirs, const char *name, struct pil_err *err)
{
	struct distro there;

	if (!str_is_name(name))
		return pil_err_say(
			err, EINVAL,
			"install '%s': a name is 1 to 64 letters, digits, '.', '_' or '-'", name);
	if (registry_find(dirs, name, &there, NULL) == 0) {
		pil_err_hint(
			err,
			"pillion -d %s starts it; --install ... --name OTHER makes a second one",
			name);
		return pil_err_say(
			err, EEXIST,
			"install '%s': A distribution with the supplied name already exists.",
			name);
	}
	return 0;
}

char *install_prepare_folder(const char *location, struct pil_err *err)
{
	_auto_free char *path = NULL;
	struct stat st;
	int ret = path_mkdirs(location, 0700);

	if (ret) {
		pil_err_set(err, -ret, "make folder '%s'", location);
		return NULL;
	}
	path = realpath(location, NULL);
	if (!path || stat(path, &st)) {
		pil_err_set(err, errno, "use folder '%s'", location);
		return NULL;
	}
	if (!S_ISDIR(st.st_mode) || st.st_uid != getuid()) {
		pil_err_say(err, EPERM, "use folder '%s': it is not a folder of yours", path);
		return NULL;
	}
	if (path_has_entries(path)) {
		pil_err_hint(err, "name a folder that is empty, or that is not there yet");
		pil_err_say(err, EEXIST,
			    "use folder '%s': The supplied install location is already in use.",
			    path);
		return NULL;
	}
	/* a program in a machine can make files of its tree set-user-id */
	if ((st.st_mode & 077) && chmod(path, 0700)) {
		pil_err_set(err, errno, "keep other users out of '%s'", path);
		return NULL;
	}
	return pil_take_ptr(&path);
}

/* The folder of the new distribution. */
static int make_folder(const struct install *i, const char *dir, struct pil_err *err)
{
	_auto_free char *parent = str_printf("%s/distros", i->dirs->data);
	_auto_free char *elsewhere = NULL;
	int ret = path_mkdirs(i->location ? parent : dir, 0755);

	if (ret)
		return pil_err_set(err, -ret, "make folder '%s'", dir);
	if (!i->location)
		return 0;
	elsewhere = install_prepare_folder(i->location, err);
	if (!elsewhere)
		return err && err->code ? -err->code : -EIO;
	return symlink(elsewhere, dir) ? pil_err_set(err, errno, "make link '%s'", dir) : 0;
}

static int make(const struct install *i, const char *dir, struct distro *distro,
		struct pil_err *err)
{
	int ret = form_kits(i->dirs, i->version, i->config, KIT_THERE, NULL, err);

	if (!ret)
		ret = make_folder(i, dir, err);
	if (!ret)
		ret = i->make(i, dir, distro, err);
	if (ret)
		return ret;
	runtime_kit_warn(i->dirs, i->config->ggml_dir, i->name);
	return form_change(i->dirs, distro, i->version, i->config, err);
}

int install_distro(const struct install *i, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/distros/%s", i->dirs->data, i->name);
	_auto_free char *default_path = str_printf("%s/default", i->dirs->data);
	_auto_fd int lock_fd = registry_lock(i->dirs, err);
	struct distro distro = {.version = 1};
	int ret;

	if (lock_fd < 0)
		return lock_fd;
	snprintf(distro.name, sizeof(distro.name), "%s", i->name);
	snprintf(distro.flavor, sizeof(distro.flavor), "%s", i->flavor);
	ret = install_check_name(i->dirs, i->name, err); /* it may have come while we waited */
	if (ret)
		return ret;
	work_announce(lock_fd, "Installing", i->name, i->version);
	tree_sweep(i->dirs);
	ret = make(i, dir, &distro, err);
	if (ret) {
		if (tree_remove(dir, NULL))
			fprintf(stderr, "(%s is left behind; the next try removes it)\n", dir);
		return ret;
	}
	return path_exists(default_path) ? 0 : registry_set_default(i->dirs, i->name, err);
}
