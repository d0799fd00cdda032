/* SPDX-License-Identifier: Apache-2.0
 *
 * launch.h -- a command of a client's, from its request to its process. */
#ifndef PIL_LAUNCH_H
#define PIL_LAUNCH_H

#include <stdbool.h>
#include <sys/types.h>

#include "agent/agent.h"
#include "base/compiler.h"
#include "guest/init/passwd.h"

struct guest;

struct launch {
	struct agent_request request; /* borrowed strings */
	struct user user;
	/* Our ends, non-blocking; -1: there is none. */
	int terminal_fd;           /* both ways */
	int in_fd, out_fd, err_fd; /* pipes, for what is no terminal */
	dev_t tty;                 /* the command's terminal */
	/* The command's ends. */
	int command_fds[3];
	int slave_fd;
};

void launch_init(struct launch *l);

/* Opens a terminal and pipes as the request asks, and starts the command.  Its pid, or -errno; what
 * goes wrong later the command's process says itself.  Ours are the caller's then. */
pid_t launch_start(struct launch *l, const struct guest *guest) PIL_MUST_CHECK;

/* Closes all descriptors. */
void launch_finish(struct launch *l);

#endif
