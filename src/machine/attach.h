/* SPDX-License-Identifier: Apache-2.0
 *
 * attach.h -- running a command in a machine with the caller's terminal or pipes. */
#ifndef PIL_ATTACH_H
#define PIL_ATTACH_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

struct attach_opts {
	const char *user;                   /* NULL: the distro's default */
	const char *cwd;                    /* NULL: the user's home */
	const char *const *args;            /* NULL-terminated; may be empty with @shell */
	const char *const *env;             /* NULL-terminated NAME=VALUE; may be NULL */
	bool shell, login;                  /* as enum agent_start_flags */
	int stdin_fd, stdout_fd, stderr_fd; /* borrowed; stdin -1: empty */
};

/* Runs it over the agent connection @fd (taken).  Returns the exit status 0..255, or -errno;
 * -EAGAIN: the machine was ending and has run nothing, connect again. */
int attach_run(int fd, const struct attach_opts *opts, struct pil_err *err) PIL_MUST_CHECK;

#endif
