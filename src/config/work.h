/* SPDX-License-Identifier: Apache-2.0
 *
 * work.h -- what is being done to a distribution, as told by the lock that is held meanwhile: its
 * file's own text, so that it ends with its holder. */
#ifndef PIL_WORK_H
#define PIL_WORK_H

#include <stdbool.h>

#include "base/str.h"

struct work {
	char state[16]; /* "Installing", "Uninstalling", "Converting" */
	char name[STR_MAX_NAME + 1];
	unsigned version;
};

/* Is the lock @path held, by anybody, just now? */
bool work_locked(const char *path);

/* What its holder does.  False: nothing. */
bool work_find(const char *path, struct work *out);

void work_announce(int lock_fd, const char *state, const char *name, unsigned version);

#endif
