/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds the folders of the XDG rules, locks files in them, and finds pillion's own programs:
 * beside this one in a build tree, or where they were installed.
 *
 * A lock is flock() on a file.  Its last holder may have removed the file while we waited, so a
 * lock counts only if the name still leads to the same file. */
#include "config/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"

/* $@variable/pillion, or $HOME/@fallback/pillion. */
static char *xdg_dir(const char *variable, const char *fallback)
{
	const char *base = getenv(variable), *home = getenv("HOME");

	if (base && base[0] == '/')
		return str_printf("%s/pillion", base);
	return str_printf("%s/%s/pillion", home && home[0] == '/' ? home : "/root", fallback);
}

static char *runtime_dir(void)
{
	const char *base = getenv("XDG_RUNTIME_DIR");
	_auto_free char *user = str_printf("/run/user/%u", getuid());

	if (base && base[0] == '/')
		return str_printf("%s/pillion", base);
	if (path_exists(user))
		return str_printf("%s/pillion", user);
	if (getuid() == 0)
		return str_printf("/run/pillion");
	return str_printf("/tmp/pillion-%u", getuid());
}

static int make_private(const char *path, struct pil_err *err)
{
	struct stat st;
	int ret = path_mkdirs(path, 0700);

	if (ret == -ENOSPC || ret == -EDQUOT)
		pil_err_hint(err, "is there room? df -h");
	if (ret)
		return pil_err_set(err, -ret, "make folder '%s'", path);
	if (lstat(path, &st) || !S_ISDIR(st.st_mode))
		return pil_err_set(err, ENOTDIR, "use folder '%s'", path);
	if (st.st_uid != getuid())
		return pil_err_say(err, EPERM, "use folder '%s': it belongs to user %u", path,
				   st.st_uid);
	return 0;
}

/* Whoever made it: a program in a machine can make files of a tree set-user-id, and of rootless
 * machines that user is the host's. */
static int close_to_others(const char *path, struct pil_err *err)
{
	struct stat st;

	if (lstat(path, &st) || ((st.st_mode & 077) && chmod(path, st.st_mode & 0700)))
		return pil_err_set(err, errno, "keep other users out of '%s'", path);
	return 0;
}

int state_dirs_init(struct state_dirs *dirs, struct pil_err *err)
{
	int ret;

	*dirs = (struct state_dirs){
		.data = xdg_dir("XDG_DATA_HOME", ".local/share"),
		.runtime = runtime_dir(),
		.cache = xdg_dir("XDG_CACHE_HOME", ".cache"),
		.config = xdg_dir("XDG_CONFIG_HOME", ".config"),
	};
	ret = make_private(dirs->data, err);
	if (!ret)
		ret = close_to_others(dirs->data, err);
	if (!ret)
		ret = make_private(dirs->runtime, err);
	if (!ret)
		ret = make_private(dirs->cache, err);
	if (ret)
		state_dirs_finish(dirs);
	return ret;
}

void state_dirs_finish(struct state_dirs *dirs)
{
	free(dirs->data);
	free(dirs->runtime);
	free(dirs->cache);
	free(dirs->config);
	*dirs = (struct state_dirs){0};
}

/* Its last holder may have removed the file while we waited: then the lock is worth nothing. */
static bool is_file_at(int fd, const char *path)
{
	struct stat ours, there;

	return fstat(fd, &ours) == 0 && stat(path, &there) == 0 && ours.st_dev == there.st_dev &&
	       ours.st_ino == there.st_ino;
}

int state_lock(const char *path, int timeout_ms, struct pil_err *err)
{
	_auto_fd int fd = -1;
	int64_t due = clock_now_ms() + timeout_ms;

	for (;;) {
		struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};

		if (fd < 0)
			fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			return pil_err_set(err, errno, "open lock '%s'", path);
		if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
			if (is_file_at(fd, path))
				return pil_take_fd(&fd);
			pil_close_p(&fd);
			continue;
		}
		if (errno != EWOULDBLOCK && errno != EINTR)
			return pil_err_set(err, errno, "lock '%s'", path);
		if (clock_now_ms() >= due)
			return pil_err_say(err, EWOULDBLOCK, "lock '%s': another pillion holds it",
					   path);
		nanosleep(&pause, NULL);
	}
}

int state_lock_patiently(const char *path, const char *why, int timeout_ms, struct pil_err *err)
{
	int fd = state_lock(path, 0, err);

	if (fd != -EWOULDBLOCK)
		return fd;
	fprintf(stderr, "Waiting: %s ...\n", why);
	return state_lock(path, timeout_ms, err);
}

char *state_find_program(const char *subdir, const char *name, struct pil_err *err)
{
	_auto_free char *self = path_of_self();
	char *found;

	if (self) {
		found = str_printf("%s/%s", self, name);
		if (access(found, X_OK) == 0)
			return found;
		free(found);
		found = str_printf("%s/../%s/%s", self, subdir, name);
		if (access(found, X_OK) == 0) {
			char *real = realpath(found, NULL);

			free(found);
			return real;
		}
		free(found);
	}
	found = str_printf("%s/%s", PILLION_LIBEXEC, name);
	if (access(found, X_OK) == 0)
		return found;
	free(found);
	pil_err_hint(err, "sudo ninja -C build install (where pillion was built)");
	pil_err_say(err, ENOENT, "%s is neither beside this program nor in %s", name,
		    PILLION_LIBEXEC);
	return NULL;
}
