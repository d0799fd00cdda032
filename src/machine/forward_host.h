/* SPDX-License-Identifier: Apache-2.0
 *
 * forward_host.h -- the host's half of localhostForwarding: what a machine's programs listen on is
 * listened on at 127.0.0.1 here.  A program of its own, pillion-forward. */
#ifndef PIL_FORWARD_HOST_H
#define PIL_FORWARD_HOST_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/agent.h"
#include "base/compiler.h"
#include "base/err.h"

struct port_list {                           /* an announcement, as far as it has come */
	uint16_t words[1 + AGENT_MAX_PORTS]; /* count, ports */
	size_t bytes;
};

/* Reads some more of a list when poll() says that there is some; after a whole one the next begins.
 * PORT_LIST_END: nothing more comes, or not by the protocol. */
enum port_list_state {
	PORT_LIST_PART,
	PORT_LIST_WHOLE,
	PORT_LIST_END
} port_list_read(struct port_list *list, int fd);

/* Starts pillion-forward.  @announce_fd: the guest says there which ports (agent.h); @path: a
 * connection to this socket reaches the guest's half; it prints to @say_fd.  All borrowed.  It ends
 * with the caller, or when the guest does not keep to the protocol.  The pid, or -errno. */
pid_t forward_host_start(int announce_fd, const char *path, int say_fd,
			 struct pil_err *err) PIL_MUST_CHECK;

/* What pillion-forward does; returns when the guest's announcements end. */
void forward_host_run(int announce_fd, const char *path);

#endif
