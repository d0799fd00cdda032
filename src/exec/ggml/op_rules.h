/* SPDX-License-Identifier: Apache-2.0
 *
 * op_rules.h -- what each tensor operation demands of its operands; the table behind graph_check.h.
 */
#ifndef PIL_OP_RULES_H
#define PIL_OP_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include "api/ggml/tensor_ops.h"
#include "exec/ggml/graph_check.h"

enum op_rule_flags {
	OP_VIEW = 1 << 0,        /* computes nothing */
	OP_BIG = 1 << 1,         /* counts elements with 64 bits */
	OP_EMPTY = 1 << 2,       /* may have no elements to compute */
	OP_ROW_SCRATCH = 1 << 3, /* needs memory for a row of src[0] per thread */
	OP_NO_ROWS = 1 << 4,     /* sources may be empty: then nothing is written */
	OP_COPIES = 1 << 5,      /* copies a row by memcpy(): none may lie partly over its source */
};

enum { OP_CONV_SCRATCH = 16 << 20 }; /* what ggml gives a convolution */

/* One node with its operands; those that are absent are NULL. */
struct op_args {
	const struct graph_env *env;
	const struct wire_tensor *dst;
	const struct wire_tensor *src[WIRE_MAX_SRC];
	bool query; /* offsets and buffers mean nothing */
};

enum op_index_limit {
	OP_LIMIT_NONE,
	OP_LIMIT_DST_ROWS,
	OP_LIMIT_SRC0_ROWS,
	OP_LIMIT_SRC0_NE2,
	OP_LIMIT_SRC0_NE3,
	OP_LIMIT_SRC1_ROWS,
};

struct op_rule {
	uint16_t required, optional; /* bit sets of sources */
	uint8_t flags;
	uint8_t index; /* the source whose values choose what memory is touched */
	uint8_t limit; /* enum op_index_limit; NONE: there is no such source */
	const char *(*check)(const struct op_args *a); /* NULL or the rule that is broken */
};

/* Bit set of the sources that an operation writes to, besides its result. */
static inline unsigned op_written_sources(uint32_t op)
{
	return op == WIRE_T_OPT_STEP_ADAMW ? 1u << 0 | 1u << 2 | 1u << 3
	       : op == WIRE_T_OPT_STEP_SGD ? 1u << 0
					   : 0;
}

/* NULL: operation without rules. */
const struct op_rule *op_rule_find(uint32_t op);

/* Everything the rules say about a node, apart from index values and places.  NULL: fine. */
const char *op_rule_check(const struct op_rule *rule, const struct op_args *a);

int64_t op_rule_limit(const struct op_rule *rule, const struct op_args *a);

/* Elements of a tensor whose sizes have been checked to multiply. */
int64_t tensor_elems(const struct wire_tensor *t);

/* Bytes from the first to behind the last element; false: overflow.  0 if there is no element. */
bool tensor_extent(const struct graph_types *types, const struct wire_tensor *t, uint64_t *bytes);
bool tensor_empty(const struct wire_tensor *t);

/* Elements follow each other without gaps in the order of the dimensions. */
bool tensor_dense(const struct graph_types *types, const struct wire_tensor *t);

/* Types whose numbers the rules name; fixed by the GGUF format. */
enum op_type {
	OP_F32 = 0,
	OP_F16 = 1,
	OP_Q4_0 = 2,
	OP_Q4_1 = 3,
	OP_Q5_0 = 6,
	OP_Q5_1 = 7,
	OP_Q8_0 = 8,
	OP_Q8_1 = 9,
	OP_Q8_K = 15,
	OP_I16 = 25,
	OP_I32 = 26,
	OP_I64 = 27,
	OP_BF16 = 30,
	OP_MXFP4 = 39,
	OP_NVFP4 = 40,
};

#endif
