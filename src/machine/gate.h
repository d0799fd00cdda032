/* SPDX-License-Identifier: Apache-2.0
 *
 * gate.h -- the process that serves a machine's programs in the broker's place (broker/gate.c). */
#ifndef PIL_GATE_H
#define PIL_GATE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"
#include "machine/respawn.h"

struct gate { /* zero: none */
	char *machine;
	int listen_fd;  /* nothing is ever accepted on it here; see gate_finish() */
	int control_fd; /* -1: it is not running */
	int say_fd;     /* where it prints; borrowed */
	pid_t pid;
	bool asked; /* and it has not answered yet */
	struct respawn again;
};

/* Makes the machine's socket, in a folder of its own that the machine is shown, and starts the gate
 * behind it, which prints to @say_fd. */
int gate_start(struct gate *gate, const struct state_dirs *dirs, const char *machine, int say_fd,
	       struct pil_err *err) PIL_MUST_CHECK;

/* Call every few seconds, and when @control_fd is readable: replaces a gate that has ended or did
 * not answer since the last time.  @tick: it is the time to ask. */
void gate_tend(struct gate *gate, bool tick);

/* Once the machine has ended.  The listening socket stays open until we exit: what is queued there
 * is the kernel's to drop then, which waits for nobody. */
void gate_finish(struct gate *gate);

#endif
