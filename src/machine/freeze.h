/* SPDX-License-Identifier: Apache-2.0
 *
 * freeze.h -- a running machine stands still for a moment, so that its files can be read as they
 * are at that moment. */
#ifndef PIL_FREEZE_H
#define PIL_FREEZE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"

struct freeze {
	pid_t thawer; /* 0: nothing stands still */
	int fd;
};

/* Stops all processes of machine @name, if it runs.  They go on at freeze_end(), and also when the
 * caller ends in any way. */
int freeze_begin(struct freeze *f, const struct state_dirs *dirs, const char *name,
		 struct pil_err *err) PIL_MUST_CHECK;
void freeze_end(struct freeze *f); /* of one that never began is fine */

#endif
