/* SPDX-License-Identifier: Apache-2.0
 *
 * null.h -- the smallest API there can be, as an example: it adds one to every byte of a buffer.
 *
 * docs/how-to-add.md walks through it. */
#ifndef PIL_API_NULL_H
#define PIL_API_NULL_H

#include "wire/api.h"

enum {
	WIRE_API_NULL = 2,
	NULL_MAX_BUFFER = 64 << 20, /* bytes: one turn of a few milliseconds */
};

struct null_run { /* is posted: memory commands wait for it, others do not */
	uint32_t buffer;
	uint32_t event; /* tells of its end; 0: none */
};

enum null_op {
#define OP(number, NAME, fixed, tail, answers) NULL_OP_##NAME = number,
#include "api/null/ops.def"
#undef OP
};

extern const struct wire_api wire_api_null;

#endif
