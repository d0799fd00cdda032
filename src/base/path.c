/* SPDX-License-Identifier: Apache-2.0
 *
 * Folders: making a path, removing a tree.  A tree that is removed may be a guest's.  So it is
 * walked by descriptors, no symbolic link is followed, and the walk stays on one file system. */
#include "base/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

int path_mkdirs(const char *path, mode_t mode)
{
	_auto_free char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	for (char *p = copy + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(copy, mode) && errno != EEXIST)
			return -errno;
		*p = c;
		if (c == '\0')
			return 0;
	}
}

static int remove_at(int dir_fd, const char *name, dev_t dev);

static int remove_children(int fd, dev_t dev)
{
	DIR *dir = fdopendir(fd);
	struct dirent *e;
	int err = 0;

	if (!dir) {
		err = -errno;
		close(fd);
		return err;
	}
	while (!err && (e = readdir(dir)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			err = remove_at(dirfd(dir), e->d_name, dev);
	closedir(dir);
	return err;
}

static int remove_at(int dir_fd, const char *name, dev_t dev)
{
	struct stat st;
	int fd, err;

	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || st.st_dev != dev) {
		close(fd);
		return -EXDEV;
	}
	err = remove_children(fd, dev);
	if (!err && unlinkat(dir_fd, name, AT_REMOVEDIR) && errno != ENOENT)
		err = -errno;
	return err;
}

int path_remove_tree(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -errno;
	return remove_at(AT_FDCWD, path, st.st_dev);
}

int path_empty_folder(const char *path)
{
	_auto_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	return remove_children(pil_take_fd(&fd), st.st_dev);
}

int path_refuse_links(const char *root, const char *below)
{
	_auto_free char *copy = strdup(below);
	_auto_fd int at = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	char *save = NULL;
	struct stat st;

	if (!copy)
		return -ENOMEM;
	if (at < 0)
		return -errno;
	for (char *name = strtok_r(copy, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
		int next = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

		if (next < 0)
			return errno == ENOENT ? 0 : -errno;
		close(at);
		at = next;
		if (fstat(at, &st))
			return -errno;
		if (S_ISLNK(st.st_mode))
			return -ELOOP;
	}
	return 0;
}

bool path_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

bool path_has_entries(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *e;

	if (!dir)
		return false;
	do
		e = readdir(dir);
	while (e && (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")));
	closedir(dir);
	return e;
}

char *path_of_self(void)
{
	char buf[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", buf, sizeof(buf) - 1);
	char *slash;

	if (n <= 0)
		return NULL;
	buf[n] = '\0';
	slash = strrchr(buf, '/');
	if (slash && slash != buf)
		*slash = '\0';
	return strdup(buf);
}
