/* SPDX-License-Identifier: Apache-2.0
 *
 * mounts.c -- cases against the mounts that the machine was given: what was mounted read-only, or
 * over something, must stay so.
 *
 * Each tries in a mount namespace of its own, which has the same owner and the same locks. */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hostile.h"

/* sys/mount.h and linux/mount.h cannot be had together on bookworm */
int mount(const char *source, const char *target, const char *type, unsigned long flags,
	  const void *data);
int umount2(const char *target, int flags);
enum { DETACH = 2 };

enum {
	OUTER_NONE,
	OUTER_SKIP_ROOT = 1,
	OUTER_RO = 2,
	OUTER_NODEV = 4,
};

static int for_mounts(const struct hostile_case *c, int which, int (*try)(const char *path))
{
	static struct mount_line lines[MAX_MOUNTS];
	struct tally t = {c, SKIPPED};
	int n = hostile_mounts_read(lines, MAX_MOUNTS);

	for (int i = n - 1; i >= 0; i--) { /* what lies on top first */
		if ((which & OUTER_SKIP_ROOT && !strcmp(lines[i].path, "/")) ||
		    (which & OUTER_RO && !lines[i].ro) || (which & OUTER_NODEV && !lines[i].nodev))
			continue;
		if (access(lines[i].path, F_OK))
			continue; /* covered */
		if (!strcmp(lines[i].path, "/dev/mqueue"))
			continue; /* its queues are the sandbox's own, and so is this mount */
		tally_add(&t, try(lines[i].path), lines[i].path);
	}
	return tally_result(&t, SKIPPED);
}

static int remount_bind(const char *path)
{
	return hostile_errno(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND, NULL));
}

static int remount_ro(const struct hostile_case *c)
{
	hostile_own_mounts();
	return for_mounts(c, OUTER_RO, remount_bind);
}

static int remount_nodev(const struct hostile_case *c)
{
	hostile_own_mounts();
	return for_mounts(c, OUTER_NODEV, remount_bind);
}

static int setattr_of(int fd, const char *path, unsigned flags)
{
	struct mount_attr attr = {.attr_clr = MOUNT_ATTR_RDONLY};

	return hostile_errno(syscall(SYS_mount_setattr, fd, path, flags, &attr, sizeof(attr)));
}

static int setattr_path(const char *path)
{
	return setattr_of(AT_FDCWD, path, 0);
}

static int setattr_ro(const struct hostile_case *c)
{
	hostile_own_mounts();
	return for_mounts(c, OUTER_RO, setattr_path);
}

static int setattr_recursive(const struct hostile_case *c)
{
	(void)c;
	hostile_own_mounts();
	return setattr_of(AT_FDCWD, "/", AT_RECURSIVE);
}

static int remount_super(const char *path)
{
	return hostile_errno(mount(NULL, path, NULL, MS_REMOUNT, NULL));
}

static int remount_superblock(const struct hostile_case *c)
{
	hostile_own_mounts();
	return for_mounts(c, OUTER_RO, remount_super);
}

static int fspick_super(const char *path)
{
	int fd = (int)syscall(SYS_fspick, AT_FDCWD, path, 0);

	if (fd < 0)
		return -errno;
	if (syscall(SYS_fsconfig, fd, FSCONFIG_SET_FLAG, "rw", NULL, 0) < 0)
		return -errno;
	return hostile_errno(syscall(SYS_fsconfig, fd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0));
}

static int fspick_superblock(const struct hostile_case *c)
{
	hostile_own_mounts();
	return for_mounts(c, OUTER_RO, fspick_super);
}

static int umount_path(const char *path)
{
	return hostile_errno(umount2(path, DETACH));
}

static int umount_outer(const struct hostile_case *c)
{
	hostile_own_mounts();
	return for_mounts(c, OUTER_SKIP_ROOT, umount_path);
}

static int move_path(const char *path)
{
	struct stat st;
	const char *to = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? "/tmp/moved" : "/tmp/file";

	return hostile_errno(mount(path, to, NULL, MS_MOVE, NULL));
}

static int move_outer(const struct hostile_case *c)
{
	int fd;

	hostile_own_mounts();
	mkdir("/tmp/moved", 0700);
	fd = open("/tmp/file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd >= 0)
		close(fd);
	return for_mounts(c, OUTER_SKIP_ROOT, move_path);
}

/* What lies below the mounts on the root folder. */
static int clone_uncovered(const struct hostile_case *c)
{
	(void)c;
	hostile_own_mounts();
	return hostile_errno(syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE | O_CLOEXEC));
}

static int bind_uncovered(const struct hostile_case *c)
{
	(void)c;
	hostile_own_mounts();
	mkdir("/tmp/below", 0700);
	return hostile_errno(mount("/", "/tmp/below", NULL, MS_BIND, NULL));
}

static int write_note(int folder, const char *name)
{
	int fd = openat(folder, name, O_WRONLY | O_APPEND | O_CLOEXEC);
	int ret = hostile_errno(fd);

	if (fd < 0)
		return ret;
	ret = hostile_errno(write(fd, "owned\n", 6));
	close(fd);
	return ret;
}

static const char *const share = "/mnt/host/ro";

static int clone_share(const struct hostile_case *c)
{
	int fd, ret;

	(void)c;
	hostile_own_mounts();
	fd = (int)syscall(SYS_open_tree, AT_FDCWD, share,
			  OPEN_TREE_CLONE | AT_RECURSIVE | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = setattr_of(fd, "", AT_EMPTY_PATH | AT_RECURSIVE);
	return ret < 0 ? ret : write_note(fd, "note");
}

static int bind_share_again(const struct hostile_case *c)
{
	(void)c;
	hostile_own_mounts();
	mkdir("/tmp/again", 0700);
	if (mount(share, "/tmp/again", NULL, MS_BIND | MS_REC, NULL))
		return -errno;
	if (mount(NULL, "/tmp/again", NULL, MS_REMOUNT | MS_BIND, NULL))
		return -errno;
	return write_note(AT_FDCWD, "/tmp/again/note");
}

static int pivot_share(const struct hostile_case *c)
{
	(void)c;
	hostile_own_mounts();
	if (mount(share, share, NULL, MS_BIND | MS_REC, NULL) || chdir(share) ||
	    syscall(SYS_pivot_root, ".", "."))
		return -errno;
	umount2(".", DETACH);
	if (chroot(".") || mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL))
		return -errno;
	return write_note(AT_FDCWD, "/note");
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		hostile_note("%s", path);
	if (fd >= 0)
		close(fd);
}

/* The write is what counts: in a namespace below, the kernel locks all flags. */
static int userns_below(const struct hostile_case *c)
{
	(void)c;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return -errno;
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", "0 0 1");
	write_file("/proc/self/gid_map", "0 0 1");
	if (umount2(share, DETACH) && mount(NULL, share, NULL, MS_REMOUNT | MS_BIND, NULL))
		return -errno;
	return write_note(AT_FDCWD, "/mnt/host/ro/note");
}

static int share_note(const struct hostile_case *c)
{
	hostile_make_writable(c->arg);
	return write_note(AT_FDCWD, c->arg);
}

static int create(const struct hostile_case *c)
{
	int fd;

	hostile_make_writable(c->arg);
	fd = open(c->arg, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int open_write(const struct hostile_case *c)
{
	struct stat st;
	int ret;

	hostile_make_writable(c->arg);
	if (access(c->arg, F_OK))
		return hostile_skip("it is not there");
	ret = hostile_open_write(c->arg);
	if (ret == -ETXTBSY && stat(c->arg, &st) == 0) /* it runs: that is said first */
		ret = hostile_errno(chmod(c->arg, st.st_mode & 07777));
	return ret;
}

/* A file system of the host's, made anew: not to be had, or not to be written. */
static int fresh(const struct hostile_case *c)
{
	hostile_own_mounts();
	mkdir("/tmp/fresh", 0700);
	return hostile_errno(mount("none", "/tmp/fresh", c->arg, 0, NULL));
}

static int fresh_sysfs(const struct hostile_case *c)
{
	hostile_own_mounts();
	mkdir("/tmp/fresh", 0700);
	if (mount("none", "/tmp/fresh", "sysfs", 0, NULL))
		return -errno;
	return hostile_open_write(c->arg);
}

static int fresh_proc(const struct hostile_case *c)
{
	hostile_own_mounts();
	mkdir("/tmp/fresh", 0700);
	if (mount("none", "/tmp/fresh", "proc", 0, NULL))
		return -errno;
	return hostile_open_write(c->arg);
}

/* The mount that the others are of, by its handle: the root of the host's file system is inode 2.
 */
static int handle_of_root(const struct hostile_case *c)
{
	struct {
		struct file_handle head;
		unsigned char bytes[64];
	} h = {.head.handle_bytes = 64};
	unsigned root[2] = {2, 0};
	int id, folder, fd;

	(void)c;
	folder = open(share, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0 || name_to_handle_at(AT_FDCWD, share, &h.head, &id, 0))
		return -errno;
	if (h.head.handle_bytes == sizeof(root))
		memcpy(h.head.f_handle, root, sizeof(root));
	fd = open_by_handle_at(folder, &h.head, O_RDONLY | O_CLOEXEC);
	return hostile_errno(fd);
}

#define FLAGS                                                                                      \
	{                                                                                          \
		EPERM, EROFS, EACCES, ENOSYS                                                       \
	}
#define LOCKED                                                                                     \
	{                                                                                          \
		EINVAL, EPERM, ENOSYS                                                              \
	}
#define NO_MOUNT                                                                                   \
	{                                                                                          \
		EPERM, ENODEV, ENOSYS, EACCES                                                      \
	}

static const struct hostile_case cases[] = {
	{"remount_ro", ON_NS, remount_ro, {EPERM, ENOSYS}},
	{"remount_nodev", ON_NS, remount_nodev, {EPERM, ENOSYS}},
	{"remount_superblock", ON_NS, remount_superblock, {EPERM, ENOSYS}},
	{"fspick_superblock", ON_NS, fspick_superblock, {EPERM, ENOSYS}},
	{"setattr_ro", ON_NS, setattr_ro, {EPERM, ENOSYS}},
	{"setattr_recursive", ON_NS, setattr_recursive, {EPERM, ENOSYS}},
	{"umount_outer", ON_NS, umount_outer, LOCKED},
	{"move_outer", ON_NS, move_outer, LOCKED},
	{"clone_uncovered", ON_NS, clone_uncovered, LOCKED},
	{"bind_uncovered", ON_NS, bind_uncovered, LOCKED},
	{"clone_share", ON_BOTH, clone_share, FLAGS},
	{"bind_share_again", ON_BOTH, bind_share_again, FLAGS},
	{"pivot_share", ON_BOTH, pivot_share, {EPERM, EROFS, EINVAL, ENOSYS}},
	{"userns_below", ON_BOTH, userns_below, {EPERM, EROFS, EACCES, ENOSYS, EINVAL, ENOSPC}},
	{"write_share", ON_BOTH, share_note, FLAGS, "/mnt/host/ro/note"},
	{"create_in_share", ON_BOTH, create, FLAGS, "/mnt/host/ro/created"},
	{"create_in_models", ON_BOTH, create, FLAGS, "/mnt/models/created"},
	{"create_beside_shares", ON_NS, create, FLAGS, "/mnt/host/created"},
	{"write_plugin",
	 ON_NS,
	 open_write,
	 {EPERM, EROFS, EACCES, ENOSYS},
	 "/usr/lib/pillion/lib/libggml-pillion.so"},
	{"write_init",
	 ON_NS,
	 open_write,
	 {EPERM, EROFS, EACCES, ENOSYS},
	 "/usr/lib/pillion/bin/pillion-init"},
	{"fresh_debugfs", ON_NS, fresh, NO_MOUNT, "debugfs"},
	{"fresh_tracefs", ON_NS, fresh, NO_MOUNT, "tracefs"},
	{"fresh_securityfs", ON_NS, fresh, NO_MOUNT, "securityfs"},
	{"fresh_pstore", ON_NS, fresh, NO_MOUNT, "pstore"},
	{"fresh_devtmpfs", ON_NS, fresh, NO_MOUNT, "devtmpfs"},
	{"fresh_sysfs", ON_NS, fresh_sysfs, FLAGS, "/tmp/fresh/kernel/mm/ksm/run"},
	{"fresh_proc", ON_NS, fresh_proc, FLAGS, "/tmp/fresh/sys/kernel/panic"},
	{"handle_of_root", ON_NS, handle_of_root, {EPERM, ENOSYS, ESTALE, EOPNOTSUPP}},
};

const struct hostile_family hostile_mounts = {cases, ARRAY_SIZE(cases)};
