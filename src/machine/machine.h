/* SPDX-License-Identifier: Apache-2.0
 *
 * machine.h -- running machines: start, reach, stop.
 *
 * A running machine is a supervisor process (pillion-machine) that holds the lock in
 * runtime/machines/NAME and everything the machine consists of.  Its agent answers on agent.sock
 * there.  The supervisor is the same for all back ends (backend.h). */
#ifndef PIL_MACHINE_H
#define PIL_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"

enum { MACHINE_EXIT_ANOTHER = 75 }; /* of a supervisor: the machine has one already */

/* Makes sure machine @name runs and connects to its agent: a descriptor, or -errno.  Two callers at
 * once get the same machine. */
int machine_connect(const struct state_dirs *dirs, const char *name,
		    struct pil_err *err) PIL_MUST_CHECK;

/* The supervisor's pid if it holds its lock, else 0. */
pid_t machine_supervisor(const struct state_dirs *dirs, const char *name);
bool machine_running(const struct state_dirs *dirs, const char *name);

/* Stops it and waits, half a minute at most.  0 also when it does not run. */
int machine_stop(const struct state_dirs *dirs, const char *name, bool force,
		 struct pil_err *err) PIL_MUST_CHECK;

#endif
