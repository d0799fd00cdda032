/* SPDX-License-Identifier: Apache-2.0
 *
 * op_cut.h -- which nodes can be computed in pieces, each a node of the same operation. */
#ifndef PIL_OP_CUT_H
#define PIL_OP_CUT_H

#include <stdint.h>

#include "exec/ggml/ggml_api.h"
#include "exec/ggml/op_rules.h"

enum { OP_CUT_WHOLE = -1 };

/* A node cut into up to @n pieces, along one dimension of the result and of each operand. */
struct op_cut {
	int64_t n;                /* 1: it cannot be cut */
	int64_t tile;             /* pieces are multiples of it, if they can */
	int64_t small;            /* and else of this one, if they can */
	int8_t dst;               /* OP_CUT_WHOLE: pieces write to their own places in it */
	int8_t src[WIRE_MAX_SRC]; /* OP_CUT_WHOLE: each piece uses all of it */
};

/* Of a node that has passed its rules. */
struct op_cut op_cut_of(const struct op_args *a);

/* How many of the @left parts that are left a piece has that is to have @wanted. */
int64_t op_cut_round(const struct op_cut *cut, int64_t wanted, int64_t left);

/* Makes @piece, with its operands in @src (WIRE_MAX_SRC), of @n of the parts of @whole. */
void op_cut_piece(const struct op_cut *cut, const struct ggml_tensor *whole, int64_t first,
		  int64_t n, struct ggml_tensor *piece, struct ggml_tensor *src);

#endif
