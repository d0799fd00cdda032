/* SPDX-License-Identifier: Apache-2.0
 *
 * op_cut.h -- which nodes can be computed in pieces, each a node of the same operation. */
#ifndef PIL_OP_CUT_H
#define PIL_OP_CUT_H

#include <stdint.h>

#include "op_rules.h"

enum { OP_CUT_WHOLE = -1 };

/* A node cut into up to @n pieces, along one dimension of the result and of each operand. */
struct op_cut {
	int64_t n; /* 1: it cannot be cut */
	int8_t dst;
	int8_t src[WIRE_MAX_SRC]; /* OP_CUT_WHOLE: each piece uses all of it */
};

/* Of a node that has passed its rules. */
struct op_cut op_cut_of(const struct op_args *a);

#endif
