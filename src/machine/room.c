/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a mount namespace in which the tree is mounted on itself.  Each step mounts
 * or makes something below it, while the host's files can still be reached; then the tree becomes
 * the root and the host's is let go, so that nothing of it is left.
 *
 * bubblewrap could do that, but denies programs in there to gain privileges (no_new_privs, nosuid):
 * no sudo, no ping.  Here the tree is mounted with set-user-id programs: what they gain ends with
 * the user namespace, as in other containers.  What comes from the host and what we make is nosuid.
 * Device nodes work in no mount but those of single devices, which we choose.
 *
 * The guest made the tree, and nobody changes it by now.  So it is enough to look, before each
 * step, that no symbolic link is in its way. */
#include "machine/room.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/mount.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"

void room_add(struct room *r, enum room_kind kind, const char *source, const char *place,
	      mode_t mode)
{
	if (r->n == ROOM_MAX_STEPS)
		abort(); /* a bug: all callers know their number */
	r->steps[r->n++] = (struct room_step){.kind = kind,
					      .source = source ? strdup(source) : NULL,
					      .place = strdup(place),
					      .mode = mode};
}

void room_finish(struct room *r)
{
	for (int i = 0; i < r->n; i++) {
		free(r->steps[i].source);
		free(r->steps[i].place);
	}
	r->n = 0;
}

/* ---- mounts ---- */

/* Adds @attributes to the mount at @path and, with AT_RECURSIVE, to all below. */
static int restrict_mount(const char *path, uint64_t attributes, unsigned flags)
{
	struct mount_attr attr = {.attr_set = attributes};

	return syscall(SYS_mount_setattr, AT_FDCWD, path, flags, &attr, sizeof(attr)) ? -errno : 0;
}

static int bind_at(const char *source, const char *path, uint64_t attributes)
{
	if (mount(source, path, NULL, MS_BIND | MS_REC, NULL))
		return -errno;
	return restrict_mount(path, attributes | MOUNT_ATTR_NOSUID, AT_RECURSIVE);
}

static int make_file(const char *path, mode_t mode, const char *text)
{
	_auto_fd int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, mode);

	if (fd < 0)
		return -errno;
	return text ? pil_write_all(fd, text, strlen(text)) : 0;
}

/* What is to be mounted on is there, of the source's kind.  The source itself is not looked at: a
 * FUSE mount answers only once we are on our way. */
static int make_place(mode_t mode, const char *path)
{
	struct stat there;

	if (lstat(path, &there) == 0)
		return 0;
	return S_ISDIR(mode) ? path_mkdirs(path, 0755) : make_file(path, 0644, NULL);
}

static int mount_new(const char *type, const char *path, unsigned long flags, const char *options)
{
	int ret = path_mkdirs(path, 0755);

	if (ret)
		return ret;
	return mount(type, path, type, MS_NOSUID | flags, options) ? -errno : 0;
}

static int mount_tmpfs(const char *path, mode_t mode)
{
	_auto_free char *options = str_printf("mode=%04o", mode);

	return mount_new("tmpfs", path, MS_NODEV, options);
}

static int bind_source(const struct room_step *s, const char *path, uint64_t attributes)
{
	int ret = make_place(s->mode, path);

	return ret ? ret : bind_at(s->source, path, attributes);
}

static int bind_node(const struct room_step *s, const char *path)
{
	struct stat st;

	if (stat(s->source, &st) || !S_ISCHR(st.st_mode) || (st.st_mode & 0006) != 0006)
		return 0;
	return bind_source(s, path, MOUNT_ATTR_NOEXEC);
}

static int make_dir(const char *path, mode_t mode)
{
	int ret = path_mkdirs(path, mode);

	return ret ? ret : chmod(path, mode) ? -errno : 0;
}

static int take_step(const struct room_step *s, const char *tree)
{
	_auto_free char *path = str_printf("%s%s", tree, s->place);
	int ret = s->kind == ROOM_LINK ? 0 : path_refuse_links(tree, s->place);

	if (ret)
		return ret;
	switch (s->kind) {
	case ROOM_BIND:
		return bind_source(s, path, MOUNT_ATTR_NODEV);
	case ROOM_DEVPTS:
		return mount_new("devpts", path, MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620");
	case ROOM_DIR:
		return make_dir(path, s->mode);
	case ROOM_LINK:
		return symlink(s->source, path) ? -errno : 0;
	case ROOM_NODE:
		return bind_node(s, path);
	case ROOM_PROC:
		return mount_new("proc", path, MS_NODEV | MS_NOEXEC, NULL);
	case ROOM_SEAL:
		return restrict_mount(path, MOUNT_ATTR_RDONLY, 0);
	case ROOM_SHOW:
		return bind_source(s, path, MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY);
	case ROOM_TEXT:
		return make_file(path, s->mode, s->source);
	case ROOM_TMPFS:
		return mount_tmpfs(path, s->mode);
	}
	return -EINVAL;
}

/* ---- the root ---- */

static int become_root(const char *tree)
{
	if (chdir(tree) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) ||
	    chdir("/"))
		return -errno;
	return 0;
}

static int furnish(const struct room *r, const char *tree)
{
	mode_t old = umask(0);
	int ret = 0;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount(tree, tree, NULL, MS_BIND | MS_REC, NULL))
		return -errno;
	if (unshare(CLONE_NEWCGROUP) && errno != EINVAL) /* a kernel without them */
		return -errno;
	ret = restrict_mount(tree, MOUNT_ATTR_NODEV, AT_RECURSIVE);
	for (int i = 0; i < r->n && !ret; i++)
		ret = take_step(&r->steps[i], tree);
	umask(old);
	return ret ? ret : become_root(tree);
}

/* Whoever started us waits for this process; it has nothing that others could use. */
static PIL_NORETURN void await(pid_t pid)
{
	int status = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "pillion-room");
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	pil_close_from(0);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int room_enter(const struct room *r, const char *tree)
{
	pid_t pid;

	if (unshare(CLONE_NEWPID))
		return -errno;
	pid = fork();
	if (pid > 0)
		await(pid);
	return pid < 0 ? -errno : furnish(r, tree);
}
