/* SPDX-License-Identifier: Apache-2.0
 *
 * tail.c -- see tail.h.  The guest chooses the text: it is escaped where it is logged. */
#include "vmm/tail.h"

#include <string.h>

#include "base/log.h"
#include "base/str.h"

static void end_line(struct tail *tail)
{
	const char *panic;

	tail->line[tail->len] = '\0';
	panic = tail->len ? strstr(tail->line, "Kernel panic - not syncing") : NULL;
	if (panic && !tail->panicked) {
		memcpy(tail->panic, panic, strlen(panic) + 1);
		tail->panicked = true;
	}
	if (tail->len)
		memcpy(tail->lines[tail->n_lines++ % TAIL_LINES], tail->line, tail->len + 1);
	tail->len = 0;
}

void tail_add(struct tail *tail, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\n' || tail->len == sizeof(tail->line) - 1)
			end_line(tail);
		if (text[i] != '\n' && text[i] != '\r')
			tail->line[tail->len++] = text[i];
	}
}

void tail_log(const struct tail *tail)
{
	char safe[TAIL_LINE_BYTES * 4];
	unsigned first = tail->n_lines > TAIL_LINES ? tail->n_lines - TAIL_LINES : 0;

	for (unsigned i = first; i < tail->n_lines; i++)
		log_err("guest: %s", str_escape(safe, sizeof(safe), tail->lines[i % TAIL_LINES]));
}
