/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: virtiofsd runs in bubblewrap, in the user namespace that owns the
 * distributions' trees, and sees nothing but the folder it serves: who the guest is to the host's
 * files is the same as in a sandbox, nobody.  A folder that is not to be written is bound read
 * only, whatever the guest mounts it as.  Both end with the pid namespace that bubblewrap is the
 * first process of.
 *
 * What it says passes through a pipe with a budget (said.h): the log lies in memory, and a
 * virtiofsd in its guest's hands could fill it.
 *
 * There are two programs of that name with options of their own: the one in C that came with QEMU
 * up to 7, and its successor in Rust. */
#include "machine/virtiofsd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/unixsock.h"
#include "port/pen.h"
#include "port/userns.h"

static const struct program {
	const char *path;
	bool rust;
} programs[] = {
	{"/usr/libexec/virtiofsd", true},
	{"/usr/lib/virtiofsd", true},
	{"/usr/lib/qemu/virtiofsd", false},
};

static const struct program *find_program(struct pil_err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
		if (path_exists(programs[i].path))
			return &programs[i];
	pil_err_hint(err, "sudo apt install virtiofsd || sudo apt install qemu-system-common");
	pil_err_say(err, ENOENT, "folders of the host: virtiofsd is missing");
	return NULL;
}

static void add_jail(struct argv *a, const char *folder, bool writable)
{
	/* what it needs to act as the guest's users, in a namespace where they are nobody */
	static const char *const more_caps[] = {"CAP_MKNOD",      "CAP_SETGID",  "CAP_SETUID",
						"CAP_SYS_CHROOT", "CAP_SETPCAP", NULL};

	pen_begin(a, pen_file_caps);
	for (const char *const *cap = more_caps; *cap; cap++)
		argv_add_all(a, (const char *const[]){"--cap-add", *cap, NULL});
	argv_add_all(a, (const char *const[]){writable ? "--bind" : "--ro-bind", folder, "/share",
					      "--", NULL});
}

static pid_t spawn(struct fs_share *fs, const struct machine_share *share, struct pil_err *err)
{
	const struct program *program = find_program(err);
	struct userns_stage stage = {0};
	_auto_argv struct argv a = {0};
	struct proc_opts opts = {.stdin_fd = -1,
				 .keep_fds = &fs->listen_fd,
				 .n_keep_fds = 1,
				 .new_session = true,
				 .die_with_us = true,
				 .max_data_bytes =
					 PEN_MAX_BYTES}; /* the guest's memory is shared */
	_auto_fd int say_fd = -1;
	int ret;

	if (!program)
		return -ENOENT;
	said_finish(&fs->said);
	ret = said_open(&fs->said, "virtiofsd", &say_fd, err);
	if (ret)
		return ret;
	opts.stdout_fd = opts.stderr_fd = say_fd;
	add_jail(&a, userns_stage_add(&stage, share->host), share->writable);
	argv_add(&a, program->path);
	argv_addf(&a, "--fd=%d", fs->listen_fd);
	if (program->rust)
		argv_add_all(&a, (const char *const[]){"--shared-dir=/share", "--sandbox=chroot",
						       "--cache=auto", "--log-level=error", NULL});
	else
		argv_add_all(&a, (const char *const[]){"-o", "source=/share", "-o",
						       "sandbox=chroot", "-o", "cache=auto", "-o",
						       "log_level=err", "-f", NULL});
	return userns_spawn(a.v, &stage, USERNS_OWN_PIDS, &opts, err);
}

int virtiofsd_start(struct fs_share *fs, const struct machine_share *share, int index,
		    const char *dir, struct pil_err *err)
{
	*fs = (struct fs_share){.listen_fd = -1, .said.read_fd = -1};
	snprintf(fs->tag, sizeof(fs->tag), "share%d", index);
	fs->socket = str_printf("%s/%s.sock", dir, fs->tag);
	fs->listen_fd = unixsock_listen(fs->socket, 1, err);
	if (fs->listen_fd < 0) {
		virtiofsd_stop(fs);
		return -err->code;
	}
	fs->pid = spawn(fs, share, err);
	if (fs->pid > 0)
		return 0;
	virtiofsd_stop(fs);
	return -err->code;
}

void virtiofsd_tend(struct fs_share *fs, const struct machine_share *share)
{
	struct pil_err err = {0};

	if (fs->socket)
		said_pass_on(&fs->said);
	if (!fs->socket || (fs->pid > 0 && proc_wait(fs->pid, 0) == -ETIMEDOUT))
		return;
	fs->pid = 0;
	if (!respawn_due(&fs->again, clock_now_ms()))
		return;
	log_warn("virtiofsd for '%s' ended; starting another", share->host);
	fs->pid = spawn(fs, share, &err);
	if (fs->pid < 0) {
		log_warn("%s", err.msg);
		fs->pid = 0;
	}
}

void virtiofsd_stop(struct fs_share *fs)
{
	if (fs->pid > 0)
		proc_stop(fs->pid, 0);
	if (fs->socket) {
		said_finish(&fs->said);
		unlink(fs->socket);
		pil_close_p(&fs->listen_fd);
	}
	free(fs->socket);
	*fs = (struct fs_share){.listen_fd = -1, .said.read_fd = -1};
}
