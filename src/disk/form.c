/* SPDX-License-Identifier: Apache-2.0
 *
 * Turns a tree into a disk and a disk into a tree.  The new form is made first, then recorded in
 * the registry, and only then is the old one removed.  So a distribution is whole whenever this is
 * interrupted; what the registry does not name is removed the next time. */
#include "disk/form.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "config/config.h"
#include "disk/image.h"
#include "kit/kernel.h"
#include "kit/runtime_kit.h"
#include "port/userns.h"

int form_kits(const struct state_dirs *dirs, unsigned version, const struct config *config,
	      enum kit_wish wish, struct form_kits *done, struct pil_err *err)
{
	bool own = config->kernel && strchr(config->kernel, '/'); /* it uses the kit's modules */
	const char *suite = own ? NULL : config->kernel;
	struct form_kits ignored;
	int ret = runtime_kit_ensure(dirs, wish, err);

	done = done ? done : &ignored;
	*done = (struct form_kits){.suite = suite, .runtime = ret, .kernel = -1};
	if (ret >= 0 && version == 2)
		done->kernel = ret = kernel_kit_ensure(dirs, suite, wish, err);
	return ret < 0 ? ret : 0;
}

/* What is left of another form than the recorded one is out of date. */
void form_remove_other(const char *dir, unsigned version)
{
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_free char *disk = str_printf("%s/" IMAGE_NAME, dir);
	struct pil_err err = {0};

	if (version == 2 && userns_remove_tree(rootfs, &err))
		log_warn("%s", err.msg);
	if (version != 2 && unlink(disk) && errno != ENOENT)
		log_warn("remove '%s': %s", disk, strerror(errno));
}

int form_change(const struct state_dirs *dirs, struct distro *distro, unsigned version,
		const struct config *config, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/distros/%s", dirs->data, distro->name);
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_free char *disk = str_printf("%s/" IMAGE_NAME, dir);
	_auto_fd int disk_fd = -1; /* until the disk is removed: nobody starts from it */
	bool there = path_exists(version == 2 ? disk : rootfs) && distro->version == version;
	int ret = form_kits(dirs, version, config, KIT_THERE, NULL, err);

	if (ret < 0)
		return ret;
	if (!there && version == 2) {
		fprintf(stderr, "Making the disk of '%s' ...\n", distro->name);
		ret = image_from_tree(dir, config->default_disk_bytes, err);
	} else if (!there) {
		fprintf(stderr, "Reading the disk of '%s' ...\n", distro->name);
		disk_fd = image_open(disk, err);
		ret = disk_fd < 0 ? disk_fd : image_to_tree(dir, err);
	}
	if (ret < 0)
		return ret;
	distro->version = version;
	ret = registry_add(dirs, distro, err);
	if (!ret)
		form_remove_other(dir, version);
	return ret;
}
