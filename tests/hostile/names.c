/* SPDX-License-Identifier: Apache-2.0
 *
 * names.c -- cases against namespaces, keyrings and control groups of the host. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hostile.h"

#ifndef NS_MNT_GET_NEXT
#define NS_MNT_GET_NEXT _IOR(0xb7, 11, char[16])
#endif

/* ---- namespaces ---- */

static bool is_own(int fd, const char *kind)
{
	char path[64];
	struct stat own, other;

	snprintf(path, sizeof(path), "/proc/self/ns/%s", kind);
	return stat(path, &own) == 0 && fstat(fd, &other) == 0 && own.st_ino == other.st_ino;
}

static const char *const kinds[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"};

struct others {
	struct tally tally;
	int (*try)(int fd);
};

static void try_namespaces(const char *path, int type, void *arg)
{
	struct others *o = arg;
	char link[600];

	if (type != DT_DIR || strspn(path + 6, "0123456789") != strlen(path + 6))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		int fd;

		snprintf(link, sizeof(link), "%s/ns/%s", path, kinds[i]);
		fd = open(link, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			if (errno != ENOENT)
				tally_add(&o->tally, -errno, link);
			continue;
		}
		if (o->try == NULL ? !is_own(fd, kinds[i]) : true)
			tally_add(&o->tally, o->try ? o->try(fd) : hostile_errno(setns(fd, 0)),
				  link);
		close(fd);
	}
}

/* Whatever there is that is not this process's own. */
static int setns_others(const struct hostile_case *c)
{
	struct others o = {.tally = {c, SKIPPED}};

	hostile_walk("/proc", 1, try_namespaces, &o);
	return tally_result(&o.tally, -ENODATA);
}

static int owner_of(int fd)
{
	int owner = ioctl(fd, NS_GET_USERNS);
	int ret;

	if (owner < 0)
		return errno == EINVAL ? -EPERM
				       : -errno; /* a user namespace has a parent, no owner */
	ret = is_own(owner, "user") ? -EPERM : hostile_errno(setns(owner, 0));
	close(owner);
	return ret;
}

static int userns_owners(const struct hostile_case *c)
{
	struct others o = {.tally = {c, SKIPPED}, .try = owner_of};

	hostile_walk("/proc", 1, try_namespaces, &o);
	return tally_result(&o.tally, -ENODATA);
}

static int userns_parent(const struct hostile_case *c)
{
	int fd = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC);

	(void)c;
	return hostile_errno(ioctl(fd, NS_GET_PARENT));
}

/* Walks through the mount namespaces of the whole computer. */
static int mount_namespaces_next(const struct hostile_case *c)
{
	int fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	char info[16] = {16};
	int next;

	(void)c;
	next = ioctl(fd, NS_MNT_GET_NEXT, info);
	if (next < 0)
		return -errno;
	return hostile_errno(setns(next, CLONE_NEWNS));
}

static int signal_host(const struct hostile_case *c)
{
	const char *victim = hostile_told("victim");

	(void)c;
	if (!victim)
		return hostile_skip("no process was named");
	return hostile_errno(kill((pid_t)strtol(victim, NULL, 10), SIGKILL));
}

static int set_id_outside(const struct hostile_case *c)
{
	uid_t id = (uid_t)strtoul(c->arg, NULL, 10);

	return hostile_errno(syscall(SYS_setresuid, id, id, id));
}

/* ---- keyrings ---- */

enum { SESSION = -3, USER = -4, USER_SESSION = -5 };

static int read_key(long key)
{
	char text[1024] = ""; /* of a keyring: numbers */
	long n = syscall(SYS_keyctl, KEYCTL_READ, key, text, sizeof(text) - 4);

	if (n < 0)
		return -errno;
	return strstr(text, "secret-of-the-host") ? 0 : -ENOKEY;
}

static int search(const struct hostile_case *c)
{
	long key = syscall(SYS_keyctl, KEYCTL_SEARCH, strtol(c->arg, NULL, 10), "user",
			   "pillion-hostile", 0);

	return key < 0 ? -errno : read_key(key);
}

static int by_number(const struct hostile_case *c)
{
	const char *number = hostile_told(c->arg);

	if (!number)
		return hostile_skip("the host has no such key");
	return read_key(strtol(number, NULL, 10));
}

static int link_key(const struct hostile_case *c)
{
	const char *number = hostile_told(c->arg);
	long key;

	if (!number)
		return hostile_skip("the host has no such key");
	key = strtol(number, NULL, 10);
	if (syscall(SYS_keyctl, KEYCTL_LINK, key, SESSION) < 0)
		return -errno;
	return read_key(key);
}

static int join_named(const struct hostile_case *c)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "pillion-hostile-session") < 0)
		return -errno;
	return search(c);
}

static int listed(const struct hostile_case *c)
{
	FILE *f = fopen("/proc/keys", "re");
	struct tally t = {c, SKIPPED};
	char line[512];

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f))
		tally_add(&t, read_key((int)strtoul(line, NULL, 16)), line);
	fclose(f);
	return tally_result(&t, -ENOKEY);
}

/* ---- control groups ---- */

struct groups {
	struct tally tally;
	const char *file, *text;
};

static void write_group(const char *path, int type, void *arg)
{
	struct groups *g = arg;
	const char *name = strrchr(path, '/') + 1;
	/* in the self-test, groups are those of a test that runs beside it: none is ours */
	const char *ours = hostile_told("folder") ? NULL : strstr(path, "pillion-hostile");
	int fd;

	if (type != DT_REG || strcmp(name, g->file))
		return;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		tally_add(&g->tally, -errno, path);
		return;
	}
	/* others' are left alone: that it could be opened is enough */
	tally_add(&g->tally, ours ? hostile_errno(write(fd, g->text, strlen(g->text))) : 0, path);
	close(fd);
}

static int group_write(const struct hostile_case *c, const char *where)
{
	const char *const text = !strcmp(c->arg, "memory.max") ? "max" : "1";
	struct groups g = {{c, SKIPPED}, c->arg, text};

	hostile_walk(where, 5, write_group, &g);
	return tally_result(&g.tally, -ENOENT);
}

static int group_given(const struct hostile_case *c)
{
	struct mount_line lines[MAX_MOUNTS];
	int n;

	hostile_own_mounts();
	n = hostile_mounts_read(lines, MAX_MOUNTS);
	for (int i = 0; i < n; i++)
		if (!strncmp(lines[i].path, "/sys", 4) &&
		    mount(NULL, lines[i].path, NULL, MS_REMOUNT | MS_BIND, NULL) && errno == EFAULT)
			return -errno;
	return group_write(c, "/sys/fs/cgroup");
}

static int group_fresh(const struct hostile_case *c)
{
	hostile_own_mounts();
	if (unshare(CLONE_NEWCGROUP) && errno != EPERM && errno != ENOSYS && errno != ENOSPC)
		return -errno;
	mkdir("/tmp/group", 0700);
	if (mount("none", "/tmp/group", "cgroup2", 0, NULL))
		return -errno;
	return group_write(c, "/tmp/group");
}

/* The old way out of containers: a program that the host runs when a group gets empty. */
static int release_agent(const struct hostile_case *c)
{
	hostile_own_mounts();
	mkdir("/tmp/group", 0700);
	if (mount("none", "/tmp/group", "cgroup", 0, c->arg))
		return -errno;
	return hostile_open_write("/tmp/group/release_agent");
}

#define NO_KEY                                                                                     \
	{                                                                                          \
		ENOKEY, EACCES, EPERM, ENOSYS                                                      \
	}
#define NO_GROUP                                                                                   \
	{                                                                                          \
		ENOENT, EPERM, EACCES, EROFS, ENOSYS, EBUSY                                        \
	}

static const struct hostile_case cases[] = {
	{"setns_others", ON_NS, setns_others, {ENODATA, EPERM, EACCES, EINVAL, ENOSYS}},
	{"userns_owners", ON_NS, userns_owners, {EPERM, EACCES, ENOSYS}},
	{"userns_parent", ON_NS, userns_parent, {EPERM, ENOTTY, ENOSYS}},
	{"mount_namespaces_next",
	 ON_NS,
	 mount_namespaces_next,
	 {ENOENT, EPERM, EINVAL, ENOTTY, ENOSYS, EOPNOTSUPP}},
	{"signal_host", ON_BOTH, signal_host, {ESRCH, EPERM}},
	{"set_id_outside", ON_NS, set_id_outside, {EINVAL, EPERM}, "70000"},
	{"set_id_of_root", ON_NS, set_id_outside, {EINVAL, EPERM}, "2013265920"},
	{"key_in_session", ON_NS, search, NO_KEY, "-3"},
	{"key_of_user", ON_NS, search, NO_KEY, "-4"},
	{"key_of_user_session", ON_NS, search, NO_KEY, "-5"},
	{"key_by_number", ON_NS, by_number, NO_KEY, "session-key"},
	{"key_of_user_by_number", ON_NS, by_number, NO_KEY, "user-key"},
	{"key_linked", ON_NS, link_key, NO_KEY, "session-key"},
	{"key_of_user_linked", ON_NS, link_key, NO_KEY, "user-key"},
	{"key_in_named_session", ON_NS, join_named, NO_KEY, "-3"},
	{"keys_listed", ON_NS, listed, {ENOKEY, EACCES, EPERM, ENOSYS, ENOENT}},
	{"group_kill", ON_NS, group_given, NO_GROUP, "cgroup.kill"},
	{"group_freeze", ON_NS, group_given, NO_GROUP, "cgroup.freeze"},
	{"group_memory", ON_NS, group_given, NO_GROUP, "memory.max"},
	{"group_procs", ON_NS, group_given, NO_GROUP, "cgroup.procs"},
	{"group_tasks", ON_NS, group_given, NO_GROUP, "tasks"},
	{"group_limits", ON_NS, group_given, NO_GROUP, "memory.limit_in_bytes"},
	{"group_devices", ON_NS, group_given, NO_GROUP, "devices.allow"},
	{"group_agent", ON_NS, group_given, NO_GROUP, "release_agent"},
	{"fresh_group_kill", ON_NS, group_fresh, NO_GROUP, "cgroup.kill"},
	{"fresh_group_freeze", ON_NS, group_fresh, NO_GROUP, "cgroup.freeze"},
	{"fresh_group_max", ON_NS, group_fresh, NO_GROUP, "memory.max"},
	{"fresh_agent_named", ON_NS, release_agent, NO_GROUP, "none,name=pillionhostile"},
	{"fresh_agent_pids", ON_NS, release_agent, NO_GROUP, "pids"},
};

const struct hostile_family hostile_names = {cases, ARRAY_SIZE(cases)};
