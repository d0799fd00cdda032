/* SPDX-License-Identifier: Apache-2.0
 *
 * forward_host.h -- the host's half of localhostForwarding: what a machine's programs listen on is
 * listened on at 127.0.0.1 here.  A program of its own, pillion-forward. */
#ifndef PIL_FORWARD_HOST_H
#define PIL_FORWARD_HOST_H

#include <sys/types.h>

#include "compiler.h"
#include "err.h"

/* Starts pillion-forward.  @announce_fd: the guest says there which ports (agent.h); @path: a
 * connection to this socket reaches the guest's half.  Both borrowed.  It ends with the caller, or
 * when the guest does not keep to the protocol.  The pid, or -errno. */
pid_t forward_host_start(int announce_fd, const char *path, struct pil_err *err) PIL_MUST_CHECK;

/* What pillion-forward does; returns when the guest's announcements end. */
void forward_host_run(int announce_fd, const char *path);

#endif
