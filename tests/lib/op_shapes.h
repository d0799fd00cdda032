/* SPDX-License-Identifier: Apache-2.0
 *
 * op_shapes.h -- small graphs for every operation, valid or nearly so, for tests of the graph
 * check.
 *
 * A graph is the sources of one or two operations as leaves, then the operations; each leaf and
 * each result has a buffer of its own, exactly as large as it needs to be. */
#ifndef PIL_OP_SHAPES_H
#define PIL_OP_SHAPES_H

#include "api/ggml/tensor_ops.h"
#include "exec/ggml/graph_check.h"
#include "wire/wire.h"

enum { OP_GRAPH_MAX_TENSORS = 24 };

struct op_graph {
	uint32_t n;
	struct wire_tensor t[OP_GRAPH_MAX_TENSORS];
	uint64_t buffer_bytes[OP_GRAPH_MAX_TENSORS + 1]; /* by handle; 0: none */
};

struct op_random {
	uint64_t state;
	uint32_t scale; /* makes some dimensions larger, up to so many times; 0: small graphs */
};

uint32_t op_random_below(struct op_random *r, uint32_t n); /* 0 for n = 0 */

/* The types of ggml 0.25 to 0.27. */
extern const struct graph_types op_shapes_types;

unsigned op_shapes_count(void);
uint32_t op_shapes_op(unsigned shape); /* WIRE_T_ of the last node */

/* Makes valid graph number @shape, of random small size. */
void op_shapes_make(struct op_graph *g, unsigned shape, struct op_random *r);

/* Changes strides and places so that the graph is still sound, but less simple. */
void op_shapes_relayout(struct op_graph *g, struct op_random *r);

/* Breaks something: a dimension, a stride, a type, a parameter, a source, a place. */
void op_shapes_mutate(struct op_graph *g, struct op_random *r);

/* Sets the sizes of the buffers to what the tensors need, at most @max; false: more. */
bool op_shapes_fit(struct op_graph *g, uint64_t max);

/* An environment in which all operations are offered and the buffers are those of @g. */
struct graph_env op_shapes_env(struct op_graph *g);

#endif
