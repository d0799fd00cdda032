/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the kernel finds a listener by the inode of its socket, and who shares a
 * FIFO by its inode, whatever the mount allows.  So a sandbox that may only read a folder gets
 * inodes of FUSE's for it, made by bindfs.
 *
 * The user namespace that mounts must be an ancestor of who uses the mount, and the one in which
 * /dev/fuse was opened.  So the child that becomes the sandbox mounts, in a mount namespace of its
 * own, before it makes the room, and sends us the descriptors.  The kernel checks who may do
 * what (default_permissions), with the ids of that namespace.
 *
 * bindfs runs outside of it, in a jail like virtiofsd's, where there is nothing but the folder,
 * read-only.  bindfs believes that it mounts by fusermount: pillion-fusermount hands it the
 * descriptor.  It has the only one: when it ends, the kernel ends the mount, and who waits for it
 * gets an error. */
#include "machine/bindfs.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "config/state.h"
#include "port/pen.h"
#include "port/userns.h"

#define DEVICE "/dev/fuse"

int bindfs_usable(const struct machine_share *share, struct pil_err *err)
{
	struct stat st;
	const char *why = NULL;

	if (!proc_have("bindfs")) {
		why = "bindfs is missing";
		pil_err_hint(err, "sudo apt install bindfs fuse3; or mark the share with "
				  "':sockets', if machines may use sockets and FIFOs in it");
	} else if (stat(DEVICE, &st)) {
		why = "the kernel has no " DEVICE;
		pil_err_hint(err, "sudo modprobe fuse");
	} else if ((st.st_mode & 0006) != 0006) {
		why = DEVICE " is not for everybody";
		pil_err_hint(err, "sudo chmod 0666 " DEVICE);
	}
	return why ? pil_err_say(err, ENOTSUP, "share '%s', read-only in a sandbox: %s",
				 share->host, why)
		   : 0;
}

int bindfs_init(struct bindfs *b, const char *dir, struct pil_err *err)
{
	int pair[2];

	*b = (struct bindfs){.near_fd = -1, .far_fd = -1};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return pil_err_set(err, errno, "folders of the host: socketpair");
	b->near_fd = pair[0];
	b->far_fd = pair[1];
	b->folder = str_printf("%s/served", dir);
	return 0;
}

const char *bindfs_add(struct bindfs *b, struct userns_stage *stage,
		       const struct machine_share *share)
{
	char *place = str_printf("%s/%d", b->folder, b->n);

	if (path_mkdirs(place, 0755))
		log_warn("make folder '%s': %s", place, strerror(errno)); /* mounting will fail */
	b->share[b->n] = share;
	b->place[b->n] = place;
	b->seen[b->n] = userns_stage_add(stage, place);
	return b->seen[b->n++];
}

static int mount_one(const struct bindfs *b, int i)
{
	_auto_fd int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	_auto_free char *options = NULL;

	if (fd < 0)
		return -errno;
	options = str_printf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,"
			     "default_permissions",
			     fd);
	if (mount("bindfs", b->seen[i], "fuse", MS_RDONLY | MS_NOSUID | MS_NODEV, options))
		return -errno;
	return pil_send_fds(b->far_fd, "", 1, &fd, 1);
}

int bindfs_mount(void *arg)
{
	const struct bindfs *b = arg;
	int ret = 0;

	if (!b->n)
		return 0;
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL))
		return -errno;
	for (int i = 0; i < b->n && !ret; i++)
		ret = mount_one(b, i);
	return ret;
}

static void add_fusermount(struct argv *a, const char *program)
{
	static const char *const places[] = {"/usr/bin/fusermount3", "/usr/bin/fusermount"};

	argv_add_all(a, (const char *const[]){"--ro-bind", program, "/bin/fusermount", NULL});
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		struct stat st;

		if (lstat(places[i], &st) == 0 && S_ISREG(st.st_mode))
			argv_add_all(a,
				     (const char *const[]){"--ro-bind", program, places[i], NULL});
	}
}

static pid_t spawn(const struct machine_share *share, int fuse_fd, int say_fd, struct pil_err *err)
{
	static const char *const caps[] = {"CAP_DAC_READ_SEARCH", NULL};
	_auto_free char *program = state_find_program("machine", "pillion-fusermount", err);
	struct userns_stage stage = {0};
	_auto_argv struct argv a = {0};
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = say_fd,
				 .stderr_fd = say_fd,
				 .keep_fds = &fuse_fd,
				 .n_keep_fds = 1,
				 .new_session = true,
				 .die_with_us = true,
				 .max_data_bytes = PEN_MAX_BYTES};

	if (!program)
		return -err->code;
	pen_begin(&a, caps);
	argv_add_all(&a, (const char *const[]){"--ro-bind", userns_stage_add(&stage, share->host),
					       "/share", NULL});
	add_fusermount(&a, userns_stage_add(&stage, program));
	argv_add_all(&a, (const char *const[]){"--dir", "/served", "--setenv", "PILLION_FUSE_FD",
					       NULL});
	argv_addf(&a, "%d", fuse_fd);
	argv_add_all(&a, (const char *const[]){"--", "bindfs", "-f", "-r", "-o", "auto_unmount",
					       "/share", "/served", NULL});
	return userns_spawn(a.v, &stage, USERNS_OWN_PIDS, &opts, err);
}

int bindfs_serve(struct bindfs *b, int say_fd, struct pil_err *err)
{
	pil_close_p(&b->far_fd);
	for (int i = 0; i < b->n; i++) {
		_auto_fd int fd = -1;
		int n = 1;
		char c;

		if (pil_recv_fds(b->near_fd, &c, 1, &fd, &n, MSG_DONTWAIT) != 1 || fd < 0)
			return pil_err_say(err, EIO, "mount share '%s' in the sandbox",
					   b->share[i]->host);
		b->pid[i] = spawn(b->share[i], fd, say_fd, err);
		if (b->pid[i] < 0)
			return -err->code;
	}
	return 0;
}

void bindfs_tend(struct bindfs *b)
{
	for (int i = 0; i < b->n; i++) {
		if (b->pid[i] <= 0 || proc_wait(b->pid[i], 0) == -ETIMEDOUT)
			continue;
		b->pid[i] = 0;
		log_warn("share '%s': bindfs ended; programs get errors there until the machine is "
			 "started again (pillion --terminate)",
			 b->share[i]->host);
	}
}

void bindfs_stop(struct bindfs *b)
{
	for (int i = 0; i < b->n; i++) {
		if (b->pid[i] > 0)
			proc_stop(b->pid[i], 0);
		free(b->place[i]);
	}
	pil_close_p(&b->near_fd);
	pil_close_p(&b->far_fd);
	free(b->folder);
	*b = (struct bindfs){.near_fd = -1, .far_fd = -1};
}
