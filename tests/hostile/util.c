/* SPDX-License-Identifier: Apache-2.0
 *
 * util.c -- what the families of cases share: mounts, trees, and the sum of many tries. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "hostile.h"

int hostile_errno(long result)
{
	return result < 0 ? -errno : (int)result;
}

void tally_add(struct tally *t, int result, const char *what)
{
	bool first = t->result == SKIPPED;

	if (t->result >= 0)
		return; /* one is enough */
	if (result >= 0 || first || !hostile_expects(t->of, -result)) {
		t->result = result > 0 ? 0 : result;
		hostile_note("%s", what);
	}
}

int tally_result(const struct tally *t, int if_none)
{
	if (t->result == SKIPPED)
		hostile_note("there is nothing to try it on");
	return t->result == SKIPPED ? if_none : t->result;
}

/* \040 is a space in mountinfo. */
static void unescape(char *path)
{
	char *to = path;

	for (const char *from = path; *from; to++) {
		if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3') {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = 0;
}

int hostile_mounts_read(struct mount_line *lines, int max)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char text[4096];
	int n = 0;

	while (f && n < max && fgets(text, sizeof(text), f)) {
		struct mount_line *m = &lines[n];
		const char *type = strstr(text, " - ");

		if (sscanf(text, "%d %*d %*s %*s %255s %127s", &m->id, m->path, m->flags) != 3 ||
		    !type || sscanf(type + 3, "%31s", m->type) != 1)
			continue;
		unescape(m->path);
		m->ro = !strncmp(m->flags, "ro", 2);
		m->nodev = strstr(m->flags, "nodev");
		n++;
	}
	if (f)
		fclose(f);
	return n;
}

void hostile_own_mounts(void)
{
	if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		perror("hostile: mounts stay shared");
}

void hostile_make_writable(const char *path)
{
	struct mount_line lines[MAX_MOUNTS];
	int n;

	hostile_own_mounts();
	n = hostile_mounts_read(lines, MAX_MOUNTS);
	for (int i = 0; i < n; i++) {
		size_t len = strlen(lines[i].path);

		if (strncmp(path, lines[i].path, len) || (len > 1 && path[len] && path[len] != '/'))
			continue;
		if (mount(NULL, lines[i].path, NULL, MS_REMOUNT | MS_BIND, NULL) == 0)
			continue;
		if (mount(NULL, lines[i].path, NULL, MS_REMOUNT, NULL) && errno == EFAULT)
			return;
	}
}

int hostile_open_write(const char *path)
{
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

void hostile_walk(const char *path, int depth, void (*visit)(const char *path, int type, void *arg),
		  void *arg)
{
	DIR *dir = opendir(path);
	const struct dirent *e;
	char below[512];

	while (dir && (e = readdir(dir))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    snprintf(below, sizeof(below), "%s/%s", path, e->d_name) >= (int)sizeof(below))
			continue;
		visit(below, e->d_type, arg);
		if (e->d_type == DT_DIR && depth > 1)
			hostile_walk(below, depth - 1, visit, arg);
	}
	if (dir)
		closedir(dir);
}
