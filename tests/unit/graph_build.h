/* SPDX-License-Identifier: Apache-2.0
 *
 * graph_build.h -- graphs as programs build them, for tests of the graph check. */
#ifndef PIL_GRAPH_BUILD_H
#define PIL_GRAPH_BUILD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "api/ggml/tensor_ops.h"
#include "exec/ggml/graph_check.h"
#include "exec/ggml/op_rules.h"
#include "lib/op_shapes.h"

enum { MAX_TENSORS = 4096, MAX_INDEX = 2048, WEIGHTS = 1, MEMORY = 2, Q4_K = 12 };

struct build {
	struct wire_tensor t[MAX_TENSORS];
	uint32_t n;
	uint64_t used[3]; /* of each buffer */
	struct graph_index index[MAX_INDEX];
	struct graph_needs needs;
	struct graph_fault fault;
	bool accelerator; /* the device is one */
	bool old_ggml;    /* without kernels for activations in BF16 */
};

static struct build b;

static inline bool size_of(void *ctx, uint32_t buffer, uint64_t *bytes)
{
	struct build *build = ctx;

	*bytes = buffer < 3 ? build->used[buffer] : 0;
	return *bytes > 0;
}

static inline int begin(void **state)
{
	(void)state;
	memset(&b, 0, sizeof(b));
	return 0;
}

static inline struct wire_tensor *at(uint32_t i)
{
	return &b.t[i - 1];
}

static inline void strides(struct wire_tensor *t)
{
	t->nb[0] = op_shapes_types.bytes[t->type];
	t->nb[1] = (uint64_t)t->ne[0] / op_shapes_types.block[t->type] * t->nb[0];
	t->nb[2] = t->nb[1] * (uint64_t)t->ne[1];
	t->nb[3] = t->nb[2] * (uint64_t)t->ne[2];
}

static inline uint32_t tensor(uint32_t buffer, uint32_t type, int64_t n0, int64_t n1, int64_t n2)
{
	struct wire_tensor *t = &b.t[b.n++];

	*t = (struct wire_tensor){.type = type, .buffer = buffer, .ne = {n0, n1, n2, 1}};
	strides(t);
	t->offset = b.used[buffer];
	b.used[buffer] += (t->nb[3] + 31) / 32 * 32;
	return b.n;
}

static inline uint32_t weight(uint32_t type, int64_t n0, int64_t n1, int64_t n2)
{
	return tensor(WEIGHTS, type, n0, n1, n2);
}

static inline uint32_t input(uint32_t type, int64_t n0, int64_t n1, int64_t n2)
{
	return tensor(MEMORY, type, n0, n1, n2);
}

static inline uint32_t as_node(uint32_t i, uint32_t op, uint32_t s0, uint32_t s1, uint32_t s2)
{
	at(i)->op = op;
	at(i)->flags = WIRE_TENSOR_NODE | WIRE_TENSOR_COMPUTE;
	at(i)->src[0] = s0;
	at(i)->src[1] = s1;
	at(i)->src[2] = s2;
	return i;
}

static inline uint32_t node(uint32_t op, int64_t n0, int64_t n1, int64_t n2, uint32_t s0,
			    uint32_t s1)
{
	return as_node(input(OP_F32, n0, n1, n2), op, s0, s1, 0);
}

static inline uint32_t like(uint32_t op, uint32_t s0, uint32_t s1)
{
	return node(op, at(s0)->ne[0], at(s0)->ne[1], at(s0)->ne[2], s0, s1);
}

static inline uint32_t view(uint32_t op, uint32_t of, int64_t n0, int64_t n1, int64_t n2,
			    uint64_t offset)
{
	struct wire_tensor *t = &b.t[b.n++];
	uint32_t base = at(of)->view_src ? at(of)->view_src : of;

	*t = *at(of);
	memset(t->src, 0, sizeof(t->src));
	t->ne[0] = n0;
	t->ne[1] = n1;
	t->ne[2] = n2;
	strides(t);
	t->view_src = base;
	t->view_offset = at(of)->view_offset + offset;
	t->offset += offset;
	return as_node(b.n, op, of, 0, 0);
}

static inline uint32_t permute(uint32_t of) /* 0 2 1 3 */
{
	uint32_t i = view(WIRE_T_PERMUTE, of, at(of)->ne[0], at(of)->ne[2], at(of)->ne[1], 0);

	at(i)->nb[1] = at(of)->nb[2];
	at(i)->nb[2] = at(of)->nb[1];
	return i;
}

static inline uint32_t product(uint32_t w, uint32_t x)
{
	return node(WIRE_T_MUL_MAT, at(w)->ne[1], at(x)->ne[1], at(x)->ne[2], w, x);
}

static inline bool check(void)
{
	static uint8_t all[32];
	struct graph_types old = op_shapes_types;
	struct graph_env env = {.types = b.old_ggml ? &old : &op_shapes_types,
				.ops = all,
				.unary = all,
				.glu = all,
				.buffer_size = size_of,
				.ctx = &b,
				.accelerator = b.accelerator};

	old.bf16_maps = false;
	memset(all, 0xff, sizeof(all));
	b.needs = (struct graph_needs){.index = b.index, .max_index = MAX_INDEX};
	return graph_check(&env, b.t, b.n, &b.needs, &b.fault);
}

static inline void assert_passes(void)
{
	if (!check())
		fail_msg("tensor %u (%s): %s", b.fault.tensor + 1,
			 wire_tensor_op_str[b.t[b.fault.tensor].op], b.fault.why);
}

static inline void assert_refused(uint32_t tensor, const char *why)
{
	assert_false(check());
	assert_string_equal(b.fault.why, why);
	assert_int_equal(b.fault.tensor + 1, tensor);
}

#endif
