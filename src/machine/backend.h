/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.h -- the ways to run a machine: what a supervisor asks of each, and which there are. */
#ifndef PIL_BACKEND_H
#define PIL_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"

struct machine_spec;
struct said;

/* What a supervisor gives its back end. */
struct backend_run {
	const struct machine_spec *spec;
	const struct state_dirs *dirs;
	const char *dir;   /* runtime/machines/NAME */
	const char *token; /* 64 hex digits; NULL: it gets no devices */
	int listen_fd;     /* of agent.sock; connections are the agent's */
	int forward_fd;    /* of forward.sock; the guest's forwarder's.  -1: no forwarding */
	int report_fd;     /* of ending.h, for the one process that knows why the machine ended */
	int64_t due_ms;    /* the agent must serve by then (clock_now_ms()) */
};

enum { BACKEND_MAX_SAID = 3 };

struct backend {
	const char *name;  /* "ns", "kvm" */
	const char *title; /* "sandbox", "microVM" */
	unsigned version;  /* as --list -v shows it */
	int ready_ms;      /* from start() to the agent, at most */
	/* Can this host run it well?  @why: one line, also when it can. */
	bool (*usable)(const struct state_dirs *dirs, char *why, int why_size);
	/* Starts it; returns a descriptor (a pidfd) that becomes readable when the machine has
	 * ended.
	 * @ready_fd becomes readable when the agent serves, or at end of file when it never will.
	 * What follows the first byte there are announcements of ports (agent.h). */
	int (*start)(void **state, const struct backend_run *run, int *ready_fd,
		     struct pil_err *err);
	/* Called every few seconds while it runs; may be NULL. */
	void (*tend)(void *state);
	/* What its parts print: read by who watches the machine.  @i is less than
	 * BACKEND_MAX_SAID; NULL: there is no such part. */
	struct said *(*said)(void *state, int i);
	int polite_ms; /* how long it may take to end when it is asked to */
	void (*ask_to_end)(void *state);
	/* Ends what is left of it by force, host programs within @grace_ms; frees @state. */
	void (*stop)(void *state, int grace_ms);
};
extern const struct backend *const backends[]; /* best first, NULL-terminated */

/* The back end for version @wanted (0: the first usable one).  NULL with the reason in @err. */
const struct backend *backend_choose(const struct state_dirs *dirs, unsigned wanted,
				     struct pil_err *err);

#endif
