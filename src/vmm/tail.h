/* SPDX-License-Identifier: Apache-2.0
 *
 * tail.h -- the last lines that a guest wrote on a console, and whether its kernel panicked. */
#ifndef PIL_TAIL_H
#define PIL_TAIL_H

#include <stdbool.h>
#include <stddef.h>

enum { TAIL_LINES = 48, TAIL_LINE_BYTES = 160 };

struct tail {
	char lines[TAIL_LINES][TAIL_LINE_BYTES];
	unsigned n_lines; /* ever completed; the latest is in lines[(n_lines - 1) % TAIL_LINES] */
	char line[TAIL_LINE_BYTES];
	size_t len;
	bool panicked;               /* one of the lines said so ... */
	char panic[TAIL_LINE_BYTES]; /* ... in these words */
};

void tail_add(struct tail *tail, const char *text, size_t len);
void tail_log(const struct tail *tail); /* at level err, escaped */

#endif
