/* SPDX-License-Identifier: Apache-2.0
 *
 * The installed distributions.
 *
 * Theory of operation: a distribution is a folder with a distro.json, which is written to another
 * name and renamed.  Whoever changes the registry holds install.lock, and announces there what it
 * is doing; --list reads that without taking the lock.  Names are compared without regard to case,
 * and the first spelling is kept. */
#include "config/registry.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <jansson.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"

enum { MAX_JSON = 64 << 10, MAX_DISTROS = 1024, LOCK_TIMEOUT_MS = 10 * 60 * 1000 };

bool registry_parse(const char *text, size_t len, struct distro *out)
{
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	const char *name, *flavor;
	int version, uid;
	bool ok = root && json_unpack(root, "{s:s, s:s, s:i, s:i}", "name", &name, "flavor",
				      &flavor, "version", &version, "defaultUid", &uid) == 0;

	ok = ok && str_is_name(name) && str_is_name(flavor) && version >= 0 && version <= 2 &&
	     uid >= 0 && uid < 65534;
	if (ok) {
		*out = (struct distro){.version = version ? (unsigned)version : 1,
				       /* 0: before 2 was */ .default_uid = (unsigned)uid};
		snprintf(out->name, sizeof(out->name), "%s", name);
		snprintf(out->flavor, sizeof(out->flavor), "%s", flavor);
	}
	json_decref(root);
	return ok;
}

static char *json_path(const struct state_dirs *dirs, const char *name)
{
	return str_printf("%s/distros/%s/distro.json", dirs->data, name);
}

/* 0, -ENOENT, or -EINVAL for a file that is not one of ours. */
static int load(const struct state_dirs *dirs, const char *name, struct distro *out)
{
	_auto_free char *path = json_path(dirs, name);
	_auto_free char *text = NULL;
	ssize_t len = pil_read_file(path, MAX_JSON, &text);

	if (len < 0)
		return (int)len;
	return registry_parse(text, (size_t)len, out) && !strcmp(out->name, name) ? 0 : -EINVAL;
}

int registry_lock(const struct state_dirs *dirs, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/install.lock", dirs->data);

	int fd = state_lock_patiently(path, "another pillion installs or removes something",
				      LOCK_TIMEOUT_MS, err);

	if (fd >= 0 && ftruncate(fd, 0)) /* what its last holder announced, if that was killed */
		log_dbg("lock: %s", strerror(errno));
	return fd;
}

char *registry_lock_path(const struct state_dirs *dirs)
{
	return str_printf("%s/install.lock", dirs->data);
}

/* How the installed @name was spelled at first; heap, NULL: not installed. */
static char *find_spelling(const struct state_dirs *dirs, const char *name)
{
	_auto_free char *path = str_printf("%s/distros", dirs->data);
	DIR *dir = opendir(path);
	char *found = NULL;
	struct dirent *e;

	while (dir && !found && (e = readdir(dir))) {
		_auto_free char *json = json_path(dirs, e->d_name);

		if (str_is_name(e->d_name) && !strcasecmp(e->d_name, name) && path_exists(json))
			found = strdup(e->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

int registry_find(const struct state_dirs *dirs, const char *name, struct distro *out,
		  struct pil_err *err)
{
	_auto_free char *spelling = NULL;
	int ret = str_is_name(name) ? load(dirs, name, out) : -ENOENT;

	if (ret == -ENOENT && str_is_name(name) && (spelling = find_spelling(dirs, name)))
		ret = load(dirs, spelling, out);
	if (ret == -ENOENT) {
		pil_err_hint(err,
			     "'%.64s' is not installed; pillion --list shows what is, "
			     "pillion --list --online what can be",
			     name);
		return pil_err_say(err, ENOENT, "There is no distribution with the supplied name.");
	}
	return ret ? pil_err_set(err, -ret, "read distros/%s/distro.json", name) : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct distro *)a)->name, ((const struct distro *)b)->name);
}

int registry_list(const struct state_dirs *dirs, struct distro **out, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/distros", dirs->data);
	_auto_free struct distro *list = calloc(MAX_DISTROS, sizeof(*list));
	DIR *dir = opendir(path);
	struct dirent *e;
	int n = 0;

	if (!list) {
		if (dir)
			closedir(dir);
		return pil_err_set(err, ENOMEM, "list distributions");
	}
	while (dir && n < MAX_DISTROS && (e = readdir(dir))) {
		int ret;

		if (!str_is_name(e->d_name))
			continue;
		ret = load(dirs, e->d_name, &list[n]);
		if (ret == 0)
			n++;
		else if (ret != -ENOENT)
			log_warn("distros/%s/distro.json: %s", e->d_name, strerror(-ret));
	}
	if (dir)
		closedir(dir);
	qsort(list, (size_t)n, sizeof(*list), by_name);
	*out = pil_take_ptr(&list);
	return n;
}

int registry_add(const struct state_dirs *dirs, const struct distro *distro, struct pil_err *err)
{
	_auto_free char *path = json_path(dirs, distro->name);
	json_t *root =
		json_pack("{s:s, s:s, s:i, s:i}", "name", distro->name, "flavor", distro->flavor,
			  "version", (int)distro->version, "defaultUid", (int)distro->default_uid);
	_auto_free char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	int ret;

	json_decref(root);
	if (!text)
		return pil_err_set(err, ENOMEM, "register '%s'", distro->name);
	ret = pil_write_file(path, 0600, text, strlen(text));
	return ret ? pil_err_set(err, -ret, "register '%s': write '%s'", distro->name, path) : 0;
}

int registry_remove(const struct state_dirs *dirs, const char *name, struct pil_err *err)
{
	_auto_free char *path = json_path(dirs, name);
	_auto_free char *default_path = str_printf("%s/default", dirs->data);
	_auto_free char *text = NULL;

	if (pil_read_file(default_path, 256, &text) > 0) {
		text[strcspn(text, "\n")] = '\0';
		if (!strcmp(text, name))
			unlink(default_path);
	}
	return unlink(path) && errno != ENOENT ? pil_err_set(err, errno, "remove '%s'", path) : 0;
}

int registry_default(const struct state_dirs *dirs, struct distro *out, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/default", dirs->data);
	_auto_free char *text = NULL;
	_auto_free struct distro *list = NULL;
	int n;

	if (pil_read_file(path, 256, &text) > 0) {
		text[strcspn(text, "\n")] = '\0';
		if (str_is_name(text) && load(dirs, text, out) == 0)
			return 0;
	}
	n = registry_list(dirs, &list, err);
	if (n < 0)
		return n;
	if (n == 0 || !list) {
		pil_err_hint(err, "pillion --install debian");
		return pil_err_say(err, ENOENT, "pillion has no installed distributions");
	}
	*out = list[0];
	return 0;
}

int registry_set_default(const struct state_dirs *dirs, const char *name, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/default", dirs->data);
	_auto_free char *line = NULL;
	struct distro distro;
	int ret = registry_find(dirs, name, &distro, err);

	if (ret)
		return ret;
	line = str_printf("%s\n", distro.name);
	ret = pil_write_file(path, 0600, line, strlen(line));
	return ret ? pil_err_set(err, -ret, "write '%s'", path) : 0;
}
