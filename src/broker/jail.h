/* SPDX-License-Identifier: Apache-2.0
 *
 * jail.h -- the sandbox an executor runs in. */
#ifndef PIL_JAIL_H
#define PIL_JAIL_H

#include "base/err.h"
#include "base/proc.h"
#include "config/config.h"
#include "config/state.h"

struct jail {
	char *root;          /* what the executor sees as /; NULL: parts of the host */
	char *program;       /* pillion-exec on the host */
	const char *lib_dir; /* borrowed from the config; NULL: the root's own libraries */
	const struct config *config;
};

/* Decides root and program: the runtime kit, or with accel.ggml_dir the host itself. */
int jail_init(struct jail *jail, const struct state_dirs *dirs, const struct config *config,
	      struct pil_err *err) PIL_MUST_CHECK;
void jail_finish(struct jail *jail);

/* Starts pillion-exec with @args (NULL-terminated) in the jail; @opts as for proc_spawn(). */
pid_t jail_spawn(const struct jail *jail, const char *const *args, const struct proc_opts *opts,
		 struct pil_err *err) PIL_MUST_CHECK;

/* Kills the jail whose first process, our child, is @pid, with what runs in it.  The caller reaps
 * it. */
void jail_kill(pid_t pid);

#endif
