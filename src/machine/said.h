/* SPDX-License-Identifier: Apache-2.0
 *
 * said.h -- what a part of a machine prints, on its way to the machine's log.
 *
 * The part gets the end of a pipe, never the log itself: it could fill the disk, or erase what
 * others wrote. */
#ifndef PIL_SAID_H
#define PIL_SAID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct said {
	const char *who; /* begins each line; borrowed */
	int read_fd;     /* to be polled; -1: none */
	int64_t filled_ms, next_ms;
	size_t left_bytes; /* of the budget */
	uint64_t lost_bytes;
	bool in_line;
	unsigned char last;
};

/* Makes the pipe.  @write_fd is for the part, and the caller's to close.  0 or -errno. */
int said_open(struct said *said, const char *who, int *write_fd,
	      struct pil_err *err) PIL_MUST_CHECK;

/* Writes what has come to stderr, as far as the budget goes; never blocks on the pipe and reads no
 * more than a pipe holds. */
void said_pass_on(struct said *said);

/* Milliseconds until the pipe is to be polled again; 0: now.  A part that prints without end is
 * read from time to time only. */
int said_rest_ms(const struct said *said);

void said_finish(struct said *said); /* passes on what is left */

#endif
