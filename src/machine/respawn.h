/* SPDX-License-Identifier: Apache-2.0
 *
 * respawn.h -- when a part of a machine that has ended is started again: at once, and then less and
 * less often while it keeps ending or cannot be started.  It is never given up: what is missing may
 * come back. */
#ifndef PIL_RESPAWN_H
#define PIL_RESPAWN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/backoff.h"

struct respawn { /* zero: nothing has been started again yet */
	struct backoff pause;
	int64_t last_ms;
};

/* May it be started at @now_ms (clock_now_ms())?  True counts as a start. */
bool respawn_due(struct respawn *r, int64_t now_ms);

#endif
