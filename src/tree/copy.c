/* SPDX-License-Identifier: Apache-2.0
 *
 * cp(1) of coreutils does the work: it knows reflinks, holes, hard links and extended attributes.
 * For a tree it runs in a pen in the user namespace that owns the tree: what it copies is a
 * guest's.  Whole files are written to the disk before a copy counts. */
#include "tree/copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "port/pen.h"
#include "port/pen_run.h"
#include "port/userns.h"

#define FROM "/from"
#define TO   "/to"

enum { COPY_MS = 60 * 60 * 1000 };

static int sync_to_disk(const char *path, struct pil_err *err)
{
	_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || syncfs(fd) ? pil_err_set(err, errno, "write '%s'", path) : 0;
}

int copy_tree(const char *from, const char *to, struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	struct userns_stage stage = {0};
	struct pen_said said = {0};
	int ret = userns_mkdir(to), status;

	if (ret)
		return pil_err_set(err, -ret, "make folder '%s'", to);
	pen_begin(&a, pen_copy_caps);
	pen_bind(&a, &stage, "--ro-bind", from, FROM);
	pen_bind(&a, &stage, "--bind", to, TO);
	/* the folder itself, with its attributes, is copied onto the one that is there */
	argv_add_all(&a, (const char *const[]){"--", "cp", "--archive", "--reflink=auto",
					       "--no-target-directory", FROM, TO, NULL});
	status = pen_run(&a, &stage, NULL, &said, err);
	if (status)
		return pen_failed("copy the tree", status, &said, err);
	return sync_to_disk(to, err);
}

int copy_file(const char *from, const char *to, struct pil_err *err)
{
	char *argv[] = {(char *)"cp",
			(char *)"--reflink=auto",
			(char *)"--sparse=always",
			(char *)"--",
			(char *)from,
			(char *)to,
			NULL};
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = -1,
				 .stderr_fd = -1,
				 .die_with_us = true};
	pid_t pid = proc_spawn(argv, &opts, err);
	int status;

	if (pid < 0)
		return pid;
	status = proc_wait(pid, COPY_MS);
	if (status == -ETIMEDOUT)
		proc_stop(pid, 1000);
	if (status) {
		pil_err_hint(err, "is there room? df -h");
		return pil_err_say(err, EIO, "copy '%s' to '%s': cp ended with status %d", from, to,
				   status);
	}
	return sync_to_disk(to, err);
}

int copy_disk(const char *from, const char *to, struct pil_err *err)
{
	int ret = copy_file(from, to, err), own = ret ? 0 : userns_own(to);

	return own ? pil_err_set(err, -own, "give away '%s'", to) : ret;
}
