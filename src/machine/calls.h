/* SPDX-License-Identifier: Apache-2.0
 *
 * calls.h -- the system calls that a sandbox may not make. */
#ifndef PIL_CALLS_H
#define PIL_CALLS_H

#include <linux/filter.h>
#include <stdint.h>

#include "base/compiler.h"

struct denied_call {
	const char *name;
	uint32_t nr, nr32; /* in a 64-bit and in a 32-bit program; NOT_A_CALL: it has none */
	uint16_t error;    /* what the call fails with */
};
enum { CALLS_NOT_A_CALL = 0xffff, CALLS_MAX_CODE = 512 };
extern const struct denied_call calls_denied[]; /* ends with .name NULL */

/* Writes the filter to @code, which has room for CALLS_MAX_CODE; returns its length. */
unsigned calls_filter(struct sock_filter *code);

#endif
