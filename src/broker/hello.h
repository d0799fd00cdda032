/* SPDX-License-Identifier: Apache-2.0
 *
 * hello.h -- what a program says first, as bytes arrive.  No I/O. */
#ifndef PIL_HELLO_H
#define PIL_HELLO_H

#include <stdbool.h>
#include <stddef.h>

#include "wire/wire.h"

enum hello_state {
	HELLO_MORE,  /* not complete yet */
	HELLO_LIST,  /* complete, asks for the devices */
	HELLO_OPEN,  /* complete, asks for one */
	HELLO_OTHER, /* another version of the protocol: answer WIRE_E_VERSION, then end */
	HELLO_BAD,   /* not a program of ours: end without an answer */
	HELLO_NUM_STATES
};

struct hello { /* starts zeroed */
	size_t have;
	struct wire_hello wire;
};

/* Where the next bytes go, and how many are wanted at most (> 0 while HELLO_MORE). */
void *hello_room(struct hello *hello, size_t *len);

/* Takes note of @len bytes put there.  A hello of a stranger is told after its first 8 bytes.  Once
 * HELLO_LIST or HELLO_OPEN, wire.program is NUL-terminated. */
enum hello_state hello_received(struct hello *hello, size_t len);

#endif
