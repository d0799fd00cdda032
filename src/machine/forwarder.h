/* SPDX-License-Identifier: Apache-2.0
 *
 * forwarder.h -- the supervisor's side of localhostForwarding: keeps pillion-forward running, and
 * tells it what the guest announces. */
#ifndef PIL_FORWARDER_H
#define PIL_FORWARDER_H

#include <sys/types.h>

#include "machine/forward_host.h"
#include "machine/respawn.h"

struct forwarder {
	int announce_fd; /* the guest says there which ports; -1: it says no more */
	int ports_fd;    /* to pillion-forward, the same */
	char *path;      /* of the way to the guest */
	int say_fd;      /* where it prints; borrowed */
	pid_t pid;       /* 0: it does not run */
	struct port_list coming, last;
	struct respawn again;
};

/* Starts it.  @announce_fd is taken; @path is copied; it prints to @say_fd.  A machine whose ports
 * cannot be reached from outside is still a machine: what fails is logged, and tried again by
 * forwarder_tend(). */
void forwarder_init(struct forwarder *f, int announce_fd, const char *path, int say_fd);
void forwarder_finish(struct forwarder *f); /* a zeroed one is fine */

/* To be called when .announce_fd is readable. */
void forwarder_read(struct forwarder *f);

/* Starts another one if it has ended. */
void forwarder_tend(struct forwarder *f);

#endif
