/* SPDX-License-Identifier: Apache-2.0
 *
 * tap.h -- a sandbox's network card, whose other side is pasta: only ARP and IP leave by it, and
 * nothing to an address that is the host's own localhost. */
#ifndef PIL_TAP_H
#define PIL_TAP_H

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/proc.h"

#define TAP_NAME "eth0"

/* Starts the pasta of @argv, which makes card TAP_NAME in network namespace @net_fd, in the user
 * namespace of process @target, and waits until it has that card.  Its pid, or -errno. */
pid_t tap_spawn_pasta(pid_t target, int net_fd, char *const *argv, const struct proc_opts *opts,
		      struct pil_err *err) PIL_MUST_CHECK;

#endif
