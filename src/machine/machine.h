/* SPDX-License-Identifier: Apache-2.0
 *
 * machine.h -- running machines: start, reach, stop.
 *
 * A running machine is a supervisor process (pillion-machine) that holds the lock in
 * runtime/machines/NAME and everything the machine consists of.  Its agent answers on agent.sock
 * there.  The supervisor is the same for all back ends; a back end is a struct machine_ops. */
#ifndef PIL_MACHINE_H
#define PIL_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"

struct config;
struct said;

enum { MACHINE_MAX_SHARES = 8 };

struct machine_share { /* a host folder seen in the machine */
	char *host, *guest;
	bool writable;
	bool needed; /* no machine without it */
	bool direct; /* a sandbox may use the sockets and FIFOs in it */
	bool plain;  /* direct, but a sandbox with sockets or FIFOs in it is refused */
};
#define MACHINE_HOST_FOLDER "/mnt/host" /* folders in there are shares, and nothing else is */

struct machine_spec { /* owned strings: machine_spec_finish() */
	char *name;
	char *dir; /* distros/NAME: rootfs/ for a sandbox, disk.ext4 for a microVM */
	char *default_user;
	unsigned version; /* 1 sandbox, 2 microVM, 0 whichever serves */
	int64_t idle_ms;  /* < 0: never stops by itself */
	struct machine_share shares[MACHINE_MAX_SHARES];
	int n_shares;
};
void machine_spec_finish(struct machine_spec *spec);

/* What a supervisor gives its back end. */
struct machine_run {
	const struct machine_spec *spec;
	const struct config *config;
	const struct state_dirs *dirs;
	const char *dir;   /* runtime/machines/NAME */
	const char *token; /* 64 hex digits */
	int listen_fd;     /* of agent.sock; connections are the agent's */
	int forward_fd;    /* of forward.sock; the guest's forwarder's.  -1: no forwarding */
	int64_t due_ms;    /* the agent must serve by then (clock_now_ms()) */
};

enum { MACHINE_EXIT_ANOTHER = 75 }; /* of a supervisor: the machine has one already */

enum { MACHINE_MAX_SAID = 3 };

struct machine_ops {
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
	int (*start)(void **state, const struct machine_run *run, int *ready_fd,
		     struct pil_err *err);
	/* Called every few seconds while it runs; may be NULL. */
	void (*tend)(void *state);
	/* What its parts print: read by who watches the machine.  @i is less than
	 * MACHINE_MAX_SAID; NULL: there is no such part. */
	struct said *(*said)(void *state, int i);
	int polite_ms; /* how long it may take to end when it is asked to */
	void (*ask_to_end)(void *state);
	/* Ends what is left of it by force, host programs within @grace_ms; frees @state. */
	void (*stop)(void *state, int grace_ms);
};
extern const struct machine_ops *const machine_backends[]; /* best first, NULL-terminated */

/* The back end for version @wanted (0: the first usable one).  NULL with the reason in @err. */
const struct machine_ops *machine_backend(const struct state_dirs *dirs, unsigned wanted,
					  struct pil_err *err);

/* Makes sure machine @name runs and connects to its agent: a descriptor, or -errno.  Two callers at
 * once get the same machine. */
int machine_connect(const struct state_dirs *dirs, const char *name,
		    struct pil_err *err) PIL_MUST_CHECK;

/* Adds to @err, which says that the machine has ended, why, as far as its log knows. */
void machine_explain_end(const struct state_dirs *dirs, const char *name, bool ran,
			 struct pil_err *err);

/* The supervisor's pid if it holds its lock, else 0. */
pid_t machine_supervisor(const struct state_dirs *dirs, const char *name);
bool machine_running(const struct state_dirs *dirs, const char *name);

/* Stops it and waits, half a minute at most.  0 also when it does not run. */
int machine_stop(const struct state_dirs *dirs, const char *name, bool force,
		 struct pil_err *err) PIL_MUST_CHECK;

#endif
