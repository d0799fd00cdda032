/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes the tree or disk of a new distribution.  Everything is made beside its final name; who is
 * killed leaves a folder without a distro.json, which the next installation removes.
 *
 * A container image is unpacked twice: first as what it is, to image.part, in the user namespace
 * that owns the trees; from there its layers are read.  A folder is packed for that by tar(1), so
 * that whatever its owners and modes are, there is one way for all images. */
#include "disk/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "config/registry.h"
#include "config/state.h"
#include "disk/image.h"
#include "disk/install.h"
#include "port/userns.h"
#include "tree/archive.h"
#include "tree/copy.h"
#include "tree/tree.h"

enum { SKOPEO_MS = 60 * 60 * 1000, TAR_MS = 10 * 60 * 1000 };

static const struct {
	const char *prefix;
	enum source_kind kind;
} prefixes[] = {
	{"docker-archive:", SOURCE_IMAGE_ARCHIVE},
	{"docker://", SOURCE_REGISTRY},
	{"oci-archive:", SOURCE_IMAGE_ARCHIVE},
	{"oci:", SOURCE_OCI},
};

void source_finish(struct source *s)
{
	free(s->path);
	free(s->tag);
	*s = (struct source){0};
}

/* "PATH:TAG", unless there is a file of that whole name. */
static void cut_tag(struct source *s)
{
	char *colon = strrchr(s->path, ':');

	if (!colon || path_exists(s->path) || strchr(colon, '/'))
		return;
	*colon = '\0';
	s->tag = str_printf("%s", colon + 1);
}

int source_parse(struct source *out, const char *text, struct pil_err *err)
{
	*out = (struct source){.kind = SOURCE_ARCHIVE};
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		size_t n = strlen(prefixes[i].prefix);

		if (strncmp(text, prefixes[i].prefix, n) != 0)
			continue;
		out->kind = prefixes[i].kind;
		text += n;
		break;
	}
	if (!text[0])
		return pil_err_say(err, EINVAL, "import: no name of a file");
	out->path = str_printf("%s", text);
	if (out->kind == SOURCE_OCI || out->kind == SOURCE_IMAGE_ARCHIVE)
		cut_tag(out);
	return 0;
}

static const char *title_of(const struct source *s)
{
	const char *slash = strrchr(s->path, '/');

	return slash && slash[1] ? slash + 1 : s->path;
}

static int open_file(const char *path, struct pil_err *err)
{
	int fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC)
				   : fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	struct stat st;

	if (fd < 0)
		return pil_err_set(err, errno, "open '%s'", path);
	if (fstat(fd, &st) || S_ISDIR(st.st_mode)) {
		close(fd);
		return pil_err_say(err, EISDIR, "open '%s': it is a folder", path);
	}
	return fd;
}

/* Unpacks @fd to @part, then gives that the name @rootfs. */
static int unpack_tree(int fd, const char *part, const char *rootfs, const char *title,
		       struct pil_err *err)
{
	int ret = userns_remove_tree(part, err);

	if (!ret)
		ret = archive_unpack(fd, part, title, err);
	if (!ret)
		ret = archive_check_tree(part, title, err);
	if (!ret && rename(part, rootfs))
		ret = pil_err_set(err, errno, "move '%s'", part);
	return ret;
}

/* ---- container images ---- */

/* Starts tar on @folder; its output, or -errno. */
static int pack_folder(const char *folder, pid_t *pid, struct pil_err *err)
{
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	struct proc_opts opts = {.stdin_fd = -1, .stderr_fd = -1, .die_with_us = true};
	char *argv[] = {(char *)"tar",       (char *)"--create",    (char *)"--owner=0",
			(char *)"--group=0", (char *)"--mode=a+rX", (char *)"--directory",
			(char *)folder,      (char *)".",           NULL};
	struct stat st;
	int fds[2];

	if (stat(folder, &st) || !S_ISDIR(st.st_mode))
		return pil_err_set(err, errno ? errno : ENOTDIR, "open folder '%s'", folder);
	if (pipe2(fds, O_CLOEXEC))
		return pil_err_set(err, errno, "read folder '%s'", folder);
	read_fd = fds[0];
	write_fd = fds[1];
	opts.stdout_fd = write_fd;
	*pid = proc_spawn(argv, &opts, err);
	return *pid < 0 ? *pid : pil_take_fd(&read_fd);
}

/* Fetches image @name to the new file @path. */
static int fetch_image(const char *name, const char *path, struct pil_err *err)
{
	_auto_free char *from = str_printf("docker://%s", name);
	_auto_free char *to = str_printf("oci-archive:%s", path);
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = STDERR_FILENO,
				 .stderr_fd = -1,
				 .die_with_us = true};
	char *argv[] = {(char *)"skopeo", (char *)"copy", from, to, NULL};
	pid_t pid = proc_spawn(argv, &opts, err);
	int status;

	if (pid == -ENOENT)
		pil_err_hint(err, "sudo apt install skopeo");
	if (pid < 0)
		return pid;
	status = proc_wait(pid, SKOPEO_MS);
	if (status == -ETIMEDOUT)
		proc_stop(pid, 1000);
	return status ? pil_err_say(err, EIO, "fetch '%s': skopeo ended with status %d", from,
				    status)
		      : 0;
}

/* Unpacks the image itself to @part. */
static int unpack_image(const struct source *s, const char *part, const char *dir,
			struct pil_err *err)
{
	_auto_free char *fetched = str_printf("%s/image.tar", dir);
	_auto_fd int fd = -1;
	pid_t pid = -1;
	int ret = 0, status = 0;

	if (s->kind == SOURCE_REGISTRY)
		ret = fetch_image(s->path, fetched, err);
	if (ret)
		return ret;
	fd = s->kind == SOURCE_OCI ? pack_folder(s->path, &pid, err)
				   : open_file(s->kind == SOURCE_REGISTRY ? fetched : s->path, err);
	if (fd < 0)
		return fd;
	ret = archive_unpack(fd, part, title_of(s), err);
	pil_close_p(&fd);
	if (pid >= 0 && (status = proc_wait(pid, TAR_MS)) == -ETIMEDOUT)
		proc_stop(pid, 100);
	if (!ret && status)
		ret = pil_err_say(err, EIO, "read folder '%s': tar ended with status %d", s->path,
				  status);
	unlink(fetched);
	return ret;
}

static int make_of_image(const struct source *s, const char *dir, struct distro *distro,
			 struct pil_err *err)
{
	_auto_free char *image = str_printf("%s/image.part", dir);
	_auto_free char *part = str_printf("%s/rootfs.part", dir);
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_free char *note = str_printf("%s/" ARCHIVE_TOLD_NAME, dir);
	struct archive_told told = {0};
	int ret = unpack_image(s, image, dir, err);

	if (!ret)
		ret = archive_unpack_image(image, s->tag, part, &told, err);
	if (!ret)
		ret = archive_told_save(&told, note, err);
	if (!ret && rename(part, rootfs))
		ret = pil_err_set(err, errno, "move '%s'", part);
	distro->default_uid = told.uid;
	archive_told_finish(&told);
	if (userns_remove_tree(image, NULL))
		log_dbg("'%s' is left behind", image);
	return ret;
}

/* ---- disks ---- */

static int make_of_disk(const struct source *s, const char *dir, struct distro *distro,
			struct pil_err *err)
{
	_auto_free char *disk = str_printf("%s/" IMAGE_NAME, dir);
	_auto_free char *from = realpath(s->path, NULL);
	_auto_fd int fd = -1;
	int ret = 0;

	if (!from)
		return pil_err_set(err, errno, "open disk '%s'", s->path);
	if (s->kind == SOURCE_DISK)
		ret = copy_disk(from, disk, err);
	else if (symlink(from, disk))
		ret = pil_err_set(err, errno, "make link '%s'", disk);
	else if ((ret = userns_own(from)))
		pil_err_set(err, -ret, "give away '%s'", from);
	if (ret)
		return ret;
	distro->version = 2;
	fd = image_open(disk, err); /* is it one, and is it whole? */
	if (fd == -EUCLEAN)
		pil_err_hint(err, "a raw image of an ext4 file system is needed: "
				  "qemu-img convert -O raw FILE.vhdx FILE");
	return fd < 0 ? fd : 0;
}

int source_make(const struct install *i, const char *dir, struct distro *distro,
		struct pil_err *err)
{
	const struct source *s = i->source;
	_auto_free char *part = str_printf("%s/rootfs.part", dir);
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_fd int fd = -1;

	switch (s->kind) {
	case SOURCE_RECIPE:
		return tree_install(i->dirs, s->recipe, dir, err);
	case SOURCE_ARCHIVE:
		fd = open_file(s->path, err);
		return fd < 0 ? fd : unpack_tree(fd, part, rootfs, title_of(s), err);
	case SOURCE_DISK:
	case SOURCE_DISK_THERE:
		return make_of_disk(s, dir, distro, err);
	case SOURCE_OCI:
	case SOURCE_IMAGE_ARCHIVE:
	case SOURCE_REGISTRY:
		return make_of_image(s, dir, distro, err);
	}
	return pil_err_say(err, EINVAL, "install: nothing to make it of");
}
