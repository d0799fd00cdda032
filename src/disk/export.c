/* SPDX-License-Identifier: Apache-2.0
 *
 * A tree is packed as it is.  A disk is turned into a tree first, beside the distribution, in a
 * folder of its own among the snapshots (where tree_remove() finds it if we are killed).  A disk
 * that a machine uses is copied before, while the machine stands still: the copy is what a power
 * failure would have left, and is repaired as that would be. */
#include "disk/export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "config/config.h"
#include "disk/image.h"
#include "tree/archive.h"
#include "tree/copy.h"
#include "tree/tree.h"

/* The folder for a disk: the disk itself, by a link, or its copy. */
static int prepare_work(struct export *e, struct pil_err *err)
{
	_auto_free char *disk = str_printf("%s/" IMAGE_NAME, e->dir);
	_auto_free char *seen = str_printf("%s/" IMAGE_NAME, e->work);
	int ret = path_mkdirs(e->work, 0700);

	if (ret)
		return pil_err_set(err, -ret, "make folder '%s'", e->work);
	if (e->running)
		return copy_disk(disk, seen, err);
	e->disk_fd = image_open(disk, err);
	return e->disk_fd < 0 ? e->disk_fd : 0;
}

int export_begin(struct export *e, const struct state_dirs *dirs, const struct distro *distro,
		 bool running, struct pil_err *err)
{
	int ret;

	*e = (struct export){
		.distro = distro,
		.dir = str_printf("%s/distros/%s", dirs->data, distro->name),
		.work = str_printf("%s/distros/%s/snapshots/.export", dirs->data, distro->name),
		.disk_fd = -1,
		.running = running,
	};
	ret = tree_remove(e->work, err);
	return ret || distro->version != 2 ? ret : prepare_work(e, err);
}

void export_finish(struct export *e)
{
	if (e->work && tree_remove(e->work, NULL))
		log_dbg("'%s' is left behind", e->work);
	pil_close_p(&e->disk_fd);
	free(e->work);
	free(e->dir);
	*e = (struct export){.disk_fd = -1};
}

int export_archive(struct export *e, int fd, const char *filter, struct pil_err *err)
{
	_auto_free char *rootfs =
		str_printf("%s/rootfs", e->distro->version == 2 ? e->work : e->dir);
	_auto_free char *disk = str_printf("%s/" IMAGE_NAME, e->dir);
	_auto_free char *copied = str_printf("%s/" IMAGE_NAME, e->work);
	_auto_fd int copy_fd = -1;
	int ret = 0;

	if (e->distro->version == 2 && e->running) {
		copy_fd = image_open(copied, err); /* repairs it */
		ret = copy_fd < 0 ? copy_fd : image_to_tree(e->work, err);
	} else if (e->distro->version == 2) {
		ret = image_to_tree_at(disk, e->work, err);
	}
	return ret ? ret : archive_pack(rootfs, fd, filter, err);
}

int export_disk(struct export *e, const struct config *config, const char *path,
		struct pil_err *err)
{
	_auto_free char *own = str_printf("%s/" IMAGE_NAME, e->dir);
	_auto_free char *copied = str_printf("%s/" IMAGE_NAME, e->work);
	int ret = 0;

	if (e->distro->version != 2) /* what the registry does not name is nobody's */
		ret = image_from_tree(e->dir, config->default_disk_bytes, err);
	if (!ret)
		ret = copy_file(e->distro->version == 2 && e->running ? copied : own, path, err);
	if (e->distro->version != 2)
		unlink(own);
	return ret;
}
