/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a group that holds processes cannot have groups with controllers below it,
 * so ours is made beside the one we are in, or in the root, which is exempt.  That takes a folder
 * above that we may write to: root's, or what systemd's user manager has been given
 * (user@UID.service and its slices).  A session's own scope, of ssh or of a console, is not.
 *
 * The kernel asks who opened cgroup.procs, not who writes: the child that becomes the sandbox moves
 * itself by our descriptor, before it executes anything.  What it starts is in the group, too.
 *
 * A supervisor that was killed leaves an empty folder.  The next one for the machine removes it. */
#include "machine/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"

static const char *const controllers[] = {"pids", "memory"};

static char *fault(struct pil_err *err, const char *what, const char *where)
{
	pil_err_hint(err, "systemd-run --user --scope -p Delegate=yes pillion ...");
	pil_err_say(err, EACCES, "no control group limits this machine: %s '%s'", what, where);
	return NULL;
}

/* The line 0::PATH; NULL: none. */
static char *own_path(const char *self)
{
	_auto_free char *text = NULL;
	char *save = NULL;

	if (pil_read_file(self, 1 << 16, &text) < 0)
		return NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!strncmp(line, "0::/", 4))
			return strdup(line + 3);
	return NULL;
}

/* Where the kernel's tree of groups is mounted whole; NULL: nowhere. */
static char *mount_point(const char *mountinfo)
{
	_auto_free char *text = NULL;
	char *save = NULL;

	if (pil_read_file(mountinfo, 1 << 20, &text) < 0)
		return NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char root[256], point[256];

		if (strstr(line, " - cgroup2 ") &&
		    sscanf(line, "%*s %*s %*s %255s %255s", root, point) == 2 && !strcmp(root, "/"))
			return strdup(point);
	}
	return NULL;
}

/* Is @word one of the words in @folder/@file? */
static bool has_word(const char *folder, const char *file, const char *word)
{
	_auto_free char *path = str_printf("%s/%s", folder, file);
	_auto_free char *text = NULL;
	char *save = NULL;

	if (pil_read_file(path, 4096, &text) < 0)
		return false;
	for (char *w = strtok_r(text, " \n", &save); w; w = strtok_r(NULL, " \n", &save))
		if (!strcmp(w, word))
			return true;
	return false;
}

static int put(const char *folder, const char *file, const char *text)
{
	_auto_free char *path = str_printf("%s/%s", folder, file);
	_auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static bool may_write(const char *folder)
{
	_auto_free char *procs = str_printf("%s/cgroup.procs", folder);

	return access(folder, W_OK) == 0 && access(procs, W_OK) == 0;
}

char *cgroup_base(const char *self, const char *mountinfo, struct pil_err *err)
{
	_auto_free char *path = own_path(self);
	_auto_free char *point = mount_point(mountinfo);
	_auto_free char *base = NULL;

	if (!path || !point)
		return fault(err, "cgroup v2 is not mounted, see", mountinfo);
	if (!strncmp(path, "/..", 3)) /* outside of our cgroup namespace */
		return fault(err, "it would be outside of what is mounted at", point);
	*strrchr(path, '/') = '\0'; /* the root's own stays */
	base = str_printf("%s%s", point, path);
	if (!may_write(base))
		return fault(err, "none may be made in", base);
	for (size_t i = 0; i < ARRAY_SIZE(controllers); i++) {
		_auto_free char *enable = str_printf("+%s", controllers[i]);

		if (!has_word(base, "cgroup.controllers", controllers[i]))
			return fault(err, "a controller is missing (pids, memory) in", base);
		if (!has_word(base, "cgroup.subtree_control", controllers[i]) &&
		    put(base, "cgroup.subtree_control", enable))
			return fault(err, "controllers cannot be given to groups in", base);
	}
	return pil_take_ptr(&base);
}

static void remove_left(const char *base, const char *prefix)
{
	DIR *dir = opendir(base);

	for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
		_auto_free char *path = str_printf("%s/%s", base, e->d_name);

		if (!strncmp(e->d_name, prefix, strlen(prefix)) && rmdir(path))
			log_dbg("group '%s': %s", path, strerror(errno)); /* of one that runs */
	}
	if (dir)
		closedir(dir);
}

static int limit(const char *folder, const char *file, uint64_t max)
{
	_auto_free char *text = str_printf("%llu", (unsigned long long)max);

	return max ? put(folder, file, text) : 0;
}

int cgroup_create(struct cgroup *g, const char *base, const char *name, uint64_t max_processes,
		  uint64_t max_bytes, struct pil_err *err)
{
	_auto_free char *prefix = str_printf("pillion-%s-", name);
	_auto_free char *procs = NULL;
	int ret;

	*g = (struct cgroup){.procs_fd = -1};
	remove_left(base, prefix);
	g->folder = str_printf("%s/%s%d", base, prefix, getpid());
	if (mkdir(g->folder, 0755)) {
		ret = pil_err_set(err, errno, "make control group '%s'", g->folder);
		free(pil_take_ptr(&g->folder));
		return ret;
	}
	procs = str_printf("%s/cgroup.procs", g->folder);
	ret = limit(g->folder, "pids.max", max_processes);
	if (!ret)
		ret = limit(g->folder, "memory.max", max_bytes);
	if (!ret) {
		g->procs_fd = open(procs, O_WRONLY | O_CLOEXEC);
		ret = g->procs_fd < 0 ? -errno : 0;
	}
	if (!ret)
		return 0;
	pil_err_set(err, -ret, "limit control group '%s'", g->folder);
	cgroup_remove(g);
	return ret;
}

int cgroup_enter(const struct cgroup *g)
{
	if (g->procs_fd < 0)
		return 0;
	return write(g->procs_fd, "0", 1) == 1 ? 0 : -errno;
}

static uint64_t number_in(const char *path)
{
	_auto_free char *text = NULL;
	uint64_t n;

	if (pil_read_file(path, 32, &text) <= 0)
		return UINT64_MAX;
	text[strcspn(text, "\n")] = '\0';
	return str_to_u64(text, UINT32_MAX, &n) ? n : UINT64_MAX;
}

uint64_t cgroup_max_processes(void)
{
	uint64_t max = number_in("/proc/sys/kernel/threads-max");
	uint64_t pids = number_in("/proc/sys/kernel/pid_max");
	struct rlimit own;

	if (pids < max)
		max = pids;
	if (getrlimit(RLIMIT_NPROC, &own) == 0 && own.rlim_max < max)
		max = own.rlim_max;
	return max / 4;
}

void cgroup_remove(struct cgroup *g)
{
	pil_close_p(&g->procs_fd);
	for (int i = 0; g->folder && rmdir(g->folder) && i < 50; i++)
		poll(NULL, 0, 10); /* the last of its processes is on its way out */
	free(g->folder);
	*g = (struct cgroup){.procs_fd = -1};
}
