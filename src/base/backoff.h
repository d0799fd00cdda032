/* SPDX-License-Identifier: Apache-2.0
 *
 * backoff.h -- a pause that doubles with each failure in a row, up to a longest one.  The caller
 * gives the time (clock_now_ms()) and decides what counts as a failure and what ends the row. */
#ifndef PIL_BACKOFF_H
#define PIL_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

struct backoff_rule {
	unsigned free;    /* failures in a row that cost no pause */
	int64_t first_ms; /* the pause after the next one; then twice as long, ... */
	int64_t longest_ms;
};

struct backoff {        /* zero: nothing has failed */
	unsigned n;     /* failures in a row */
	int64_t due_ms; /* the end of the pause */
};

void backoff_note(struct backoff *b, const struct backoff_rule *rule, int64_t now_ms);
void backoff_reset(struct backoff *b); /* the row of failures is over, and so is the pause */
bool backoff_due(const struct backoff *b, int64_t now_ms); /* the pause is over, or was none */

#endif
