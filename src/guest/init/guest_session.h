/* SPDX-License-Identifier: Apache-2.0
 *
 * guest_session.h -- one command run for a client of the agent. */
#ifndef PIL_GUEST_SESSION_H
#define PIL_GUEST_SESSION_H

#include <sys/types.h>

#include "base/loop.h"
#include "guest/init/wsl_conf.h"

struct guest_session;

struct guest {
	struct loop *loop;
	struct wsl_conf conf;
	const char *distro; /* name, for WSL_DISTRO_NAME */
	const char *default_user;
	const char *const *env; /* NAME=VALUE, of all commands; NULL-terminated */
	struct list sessions;   /* guest_session::link */
	void (*became_idle)(struct guest *guest);
};

/* Serves connection @fd (taken).  Frees itself when the stream ends. */
void guest_session_create(struct guest *guest, int fd);

/* A child was reaped: tells its session, if it has one. */
void guest_session_child_ended(struct guest *guest, pid_t pid, int status);

#endif
