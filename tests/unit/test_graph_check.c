/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "exec/ggml/op_cut.h"
#include "graph_build.h"
#include "lib/bound.h"

static uint32_t norm(uint32_t x)
{
	float eps = 1e-6f;
	uint32_t i = like(WIRE_T_RMS_NORM, x, 0);

	memcpy(at(i)->params, &eps, sizeof(eps));
	return like(WIRE_T_MUL, i, weight(OP_F32, at(x)->ne[0], 1, 1));
}

static uint32_t rope(uint32_t x, uint32_t pos)
{
	uint32_t i = like(WIRE_T_ROPE, x, pos);

	at(i)->params[1] = (int32_t)at(x)->ne[0];
	at(i)->params[2] = 2;
	return i;
}

static uint32_t store(uint32_t cache, uint32_t rows, uint32_t index)
{
	uint32_t i = view(WIRE_T_SET_ROWS, cache, at(cache)->ne[0], at(cache)->ne[1], 1, 0);

	as_node(i, WIRE_T_SET_ROWS, rows, index, cache);
	return i;
}

enum { WIDTH = 256, HEADS = 4, KV_HEADS = 2, HEAD = 64, CELLS = 256, EXPERTS = 8, USED = 2 };

static uint32_t attention(uint32_t x, uint32_t pos, uint32_t cells, uint32_t mask)
{
	int64_t n = at(x)->ne[1];
	uint32_t cache_k = weight(OP_F16, HEAD * KV_HEADS, CELLS, 1);
	uint32_t cache_v = weight(OP_F16, HEAD * KV_HEADS, CELLS, 1);
	uint32_t q = product(weight(Q4_K, WIDTH, HEAD * HEADS, 1), x);
	uint32_t k = product(weight(Q4_K, WIDTH, HEAD * KV_HEADS, 1), x);
	uint32_t v = product(weight(Q4_K, WIDTH, HEAD * KV_HEADS, 1), x);
	uint32_t i, out;

	q = rope(view(WIRE_T_RESHAPE, q, HEAD, HEADS, n, 0), pos);
	k = rope(view(WIRE_T_RESHAPE, k, HEAD, KV_HEADS, n, 0), pos);
	store(cache_k, view(WIRE_T_RESHAPE, k, HEAD * KV_HEADS, n, 1, 0), cells);
	store(cache_v, v, cells);
	q = permute(q);
	k = permute(view(WIRE_T_VIEW, cache_k, HEAD, KV_HEADS, CELLS / 2, 0));
	v = permute(view(WIRE_T_VIEW, cache_v, HEAD, KV_HEADS, CELLS / 2, 0));
	i = node(WIRE_T_FLASH_ATTN_EXT, HEAD, HEADS, n, q, k);
	at(i)->src[2] = v;
	at(i)->src[3] = mask;
	out = view(WIRE_T_RESHAPE, i, HEAD * HEADS, n, 1, 0);
	return product(weight(Q4_K, HEAD * HEADS, WIDTH, 1), out);
}

static uint32_t feed_forward(uint32_t x)
{
	uint32_t gate = product(weight(Q4_K, WIDTH, 2 * WIDTH, 1), x);
	uint32_t up = product(weight(Q4_K, WIDTH, 2 * WIDTH, 1), x);
	uint32_t i = like(WIRE_T_GLU, gate, up);

	at(i)->params[0] = WIRE_GLU_GEGLU;
	return product(weight(Q4_K, 2 * WIDTH, WIDTH, 1), i);
}

static uint32_t experts(uint32_t x)
{
	int64_t n = at(x)->ne[1];
	uint32_t probs = like(WIRE_T_SOFT_MAX, product(weight(OP_F32, WIDTH, EXPERTS, 1), x), 0);
	uint32_t sorted = as_node(input(OP_I32, EXPERTS, n, 1), WIRE_T_ARGSORT, probs, 0, 0);
	uint32_t chosen, weights, x3, up, down, w;
	float one = 1.0f;

	memcpy(at(probs)->params, &one, sizeof(one));
	at(sorted)->params[0] = 1;
	chosen = view(WIRE_T_VIEW, sorted, USED, n, 1, 0);
	at(chosen)->nb[1] = at(sorted)->nb[1];
	at(chosen)->nb[2] = at(chosen)->nb[3] = at(sorted)->nb[2];
	weights = node(WIRE_T_GET_ROWS, 1, USED, n, view(WIRE_T_RESHAPE, probs, 1, EXPERTS, n, 0),
		       chosen);
	x3 = view(WIRE_T_RESHAPE, x, WIDTH, 1, n, 0);
	w = weight(Q4_K, WIDTH, 2 * WIDTH, EXPERTS);
	up = as_node(input(OP_F32, 2 * WIDTH, USED, n), WIRE_T_MUL_MAT_ID, w, x3, chosen);
	up = like(WIRE_T_UNARY, up, 0);
	at(up)->params[0] = WIRE_UNARY_SILU;
	w = weight(Q4_K, 2 * WIDTH, WIDTH, EXPERTS);
	down = as_node(input(OP_F32, WIDTH, USED, n), WIRE_T_MUL_MAT_ID, w, up, chosen);
	down = like(WIRE_T_MUL, down, weights);
	return node(WIRE_T_ADD, WIDTH, n, 1, view(WIRE_T_VIEW, down, WIDTH, n, 1, 0), x);
}

static uint32_t decoder(int layers, int64_t n, bool moe)
{
	uint32_t tokens = input(OP_I32, n, 1, 1), pos = input(OP_I32, n, 1, 1);
	uint32_t cells = input(OP_I64, n, 1, 1), outputs = input(OP_I32, 1, 1, 1);
	uint32_t mask = input(OP_F16, CELLS / 2, n, 1);
	uint32_t table = weight(Q4_K, WIDTH, 1000, 1);
	uint32_t x = node(WIRE_T_GET_ROWS, WIDTH, n, 1, table, tokens);

	for (int i = 0; i < layers; i++) {
		x = like(WIRE_T_ADD, attention(norm(x), pos, cells, mask), x);
		x = like(WIRE_T_ADD, moe ? experts(norm(x)) : feed_forward(norm(x)), x);
	}
	x = node(WIRE_T_GET_ROWS, WIDTH, 1, 1, norm(x), outputs);
	x = product(table, x);
	x = like(WIRE_T_SCALE, x, 0); /* soft cap */
	x = like(WIRE_T_UNARY, x, 0);
	at(x)->params[0] = WIRE_UNARY_TANH;
	return like(WIRE_T_SCALE, x, 0);
}

/* ---- what must pass ---- */

static void test_every_operation_passes_in_its_plainest_form(void **state)
{
	struct op_random r = {1};

	(void)state;
	for (unsigned shape = 0; shape < op_shapes_count(); shape++) {
		for (int i = 0; i < 200; i++) {
			struct graph_index index[OP_GRAPH_MAX_TENSORS];
			struct graph_needs needs = {.index = index,
						    .max_index = OP_GRAPH_MAX_TENSORS};
			struct graph_fault fault;
			struct op_graph g;
			struct graph_env env;

			op_shapes_make(&g, shape, &r);
			env = op_shapes_env(&g);
			if (!graph_check(&env, g.t, g.n, &needs, &fault))
				fail_msg("%s (shape %u): tensor %u: %s",
					 wire_tensor_op_str[op_shapes_op(shape)], shape,
					 fault.tensor + 1, fault.why);
			assert_true(graph_check_query(&env, g.t, g.n, &fault));
		}
	}
}

static void test_every_operation_with_a_rule_has_a_shape(void **state)
{
	(void)state;
	for (uint32_t op = 1; op < WIRE_NUM_TENSOR_OPS; op++) {
		bool found = false;

		for (unsigned s = 0; s < op_shapes_count(); s++)
			found = found || op_shapes_op(s) == op;
		if (graph_check_knows(op) != found)
			fail_msg("%s: rule %d, shape %d", wire_tensor_op_str[op],
				 graph_check_knows(op), found);
	}
	assert_false(graph_check_knows(WIRE_NUM_TENSOR_OPS));
}

static void test_a_decoder_passes_and_its_inputs_are_listed(void **state)
{
	(void)state;
	decoder(4, 5, false);
	assert_passes();
	assert_int_equal(b.needs.n_index, 3); /* tokens, cells, outputs; not the positions */
	assert_int_equal(b.index[0].limit, 1000);
	assert_int_equal(b.index[1].limit, CELLS);
	assert_int_equal(b.index[2].limit, 5);
}

static void test_a_mixture_of_experts_passes_without_more_index_tensors(void **state)
{
	(void)state;
	decoder(3, 7, true);
	assert_passes();
	assert_int_equal(b.needs.n_index, 3);
}

static void test_a_speech_encoder_passes(void **state)
{
	uint32_t x, k, i, w;
	(void)state;
	x = input(OP_F32, 3000, 80, 1);
	k = weight(OP_F16, 3, 80, WIDTH);
	i = as_node(input(OP_F16, 240, 3000, 1), WIRE_T_IM2COL, k, x, 0);
	at(i)->params[0] = at(i)->params[2] = at(i)->params[4] = 1; /* s1 and d1 are 0 in 1-D */
	w = view(WIRE_T_RESHAPE, k, 240, WIDTH, 1, 0);
	x = product(i, w);
	x = like(WIRE_T_ADD, x, weight(OP_F32, 1, WIDTH, 1));
	x = like(WIRE_T_UNARY, x, 0);
	at(x)->params[0] = WIRE_UNARY_GELU;
	i = view(WIRE_T_TRANSPOSE, x, WIDTH, 3000, 1, 0);
	at(i)->nb[0] = at(x)->nb[1];
	at(i)->nb[1] = at(x)->nb[0];
	x = as_node(input(OP_F32, WIDTH, 3000, 1), WIRE_T_CONT, i, 0, 0);
	x = like(WIRE_T_NORM, x, 0);
	product(weight(OP_F16, WIDTH, WIDTH, 1), x);
	assert_passes();
}

static void test_an_empty_batch_passes(void **state)
{
	uint32_t x, none;
	(void)state;
	x = input(OP_F32, WIDTH, 4, 1);
	none = input(OP_I32, 0, 1, 1);
	x = node(WIRE_T_GET_ROWS, WIDTH, 0, 1, x, none);
	feed_forward(norm(x));
	b.used[MEMORY] += 64;
	assert_passes();
	assert_int_equal(b.needs.n_index, 0);
}

static void test_a_large_graph_is_checked_in_microseconds(void **state)
{
	struct timespec from, to;
	double us, best = 1e9;
	(void)state;

	decoder(40, 1, false);
	for (int i = 0; i < 20; i++) {
		clock_gettime(CLOCK_MONOTONIC, &from);
		assert_passes();
		clock_gettime(CLOCK_MONOTONIC, &to);
		us = (double)(to.tv_sec - from.tv_sec) * 1e6 +
		     (double)(to.tv_nsec - from.tv_nsec) / 1e3;
		best = us < best ? us : best;
	}
	print_message("%u tensors: %.0f us\n", b.n, best);
	assert_true(best <
		    bound_ms(5000)); /* loose: sanitizers and busy machines; 100 us is usual */
}

/* ---- what must not ---- */

static void test_a_tensor_outside_of_its_buffer_is_refused(void **state)
{
	uint32_t x, y;
	(void)state;
	x = input(OP_F32, 16, 4, 1);
	y = like(WIRE_T_SQR, x, 0);
	assert_passes();
	b.used[MEMORY]--;
	assert_refused(y, "outside of its buffer");
	b.used[MEMORY]++;
	at(x)->nb[1] = UINT64_MAX - 3;
	assert_refused(x, "outside of its buffer");
	strides(at(x));
	at(x)->offset = UINT64_MAX - 3;
	assert_refused(x, "outside of its buffer");
	at(x)->offset = 0;
	at(x)->buffer = 7;
	assert_refused(x, "no such buffer");
	at(x)->buffer = 0;
	assert_refused(x, "no such buffer");
}

static void test_an_unsound_tensor_is_refused(void **state)
{
	uint32_t x, y;
	(void)state;
	x = input(OP_F32, 16, 4, 1);
	y = like(WIRE_T_SQR, x, 0);
	at(x)->ne[1] = -1;
	assert_refused(x, "a dimension out of range");
	at(x)->ne[1] = INT64_C(1) << 31;
	assert_refused(x, "a dimension out of range");
	at(x)->ne[1] = at(x)->ne[2] = INT32_MAX;
	assert_refused(x, "too many elements");
	at(x)->ne[1] = 4;
	at(x)->ne[2] = 1;
	at(x)->nb[1] = 0;
	assert_refused(x, "a stride of 0");
	at(x)->nb[1] = 62;
	assert_refused(x, "a stride that is no multiple of the element");
	strides(at(x));
	at(x)->type = 4; /* removed from ggml */
	assert_refused(x, "an unknown type");
	at(x)->type = WIRE_MAX_TYPES;
	assert_refused(x, "an unknown type");
	at(x)->type = OP_F32;
	memset(at(x)->name, 'x', sizeof(at(x)->name));
	assert_refused(x, "a name without an end");
	memset(at(x)->name, 0, sizeof(at(x)->name));
	at(x)->offset = 2;
	assert_refused(x, "not aligned to its elements");
	at(x)->offset = 0;
	at(x)->flags = 1u << 31;
	assert_refused(x, "unknown flags");
	at(x)->flags = 0;
	at(y)->op = WIRE_T_FLASH_ATTN_BACK;
	assert_refused(y, "an operation that is not offered");
	at(y)->op = UINT32_MAX;
	assert_refused(y, "an operation that is not offered");
}

static void test_references_point_backwards(void **state)
{
	uint32_t x, y;
	(void)state;
	x = input(OP_F32, 16, 4, 1);
	y = like(WIRE_T_SQR, x, 0);
	at(y)->src[0] = y;
	assert_refused(y, "a source that does not come before");
	at(y)->src[0] = UINT32_MAX;
	assert_refused(y, "a source that does not come before");
	at(y)->src[0] = 0;
	assert_refused(y, "a source is missing");
	at(y)->src[0] = at(y)->src[1] = x;
	assert_refused(y, "a source too many");
	at(y)->src[1] = 0;
	at(y)->view_src = y;
	assert_refused(y, "a view of what does not come before");
	at(y)->view_src = 0;
	at(y)->flags = 0;
	assert_refused(y, "a leaf with an operation");
	at(y)->op = WIRE_T_NONE;
	assert_refused(y, "a source that does not come before");
}

static void test_a_view_lies_where_it_says(void **state)
{
	uint32_t x, v;
	(void)state;
	x = input(OP_F32, 16, 4, 1);
	v = view(WIRE_T_VIEW, x, 16, 1, 1, 64);
	assert_passes();
	at(v)->offset += 64;
	assert_refused(v, "a view that lies elsewhere");
	at(v)->offset -= 64;
	at(v)->view_src = 0;
	assert_refused(v, "an offset into nothing");
	at(v)->view_src = x;
	at(view(WIRE_T_VIEW, v, 16, 1, 1, 0))->view_src = v;
	assert_refused(b.n, "a view of a view");
}

/* Back ends that fuse nodes take their word for it. */
static void test_a_view_is_what_it_says(void **state)
{
	uint32_t x, v;
	(void)state;
	x = input(OP_F32, 16, 4, 2);
	input(OP_F32, 1024, 1, 1);
	v = view(WIRE_T_VIEW, x, 16, 2, 1, 0);
	assert_passes();
	at(v)->nb[1] = 512;
	assert_refused(v, "a view beyond what it is of");
	strides(at(v));
	v = view(WIRE_T_RESHAPE, x, 64, 2, 1, 0);
	assert_passes();
	at(v)->ne[1] = 1;
	assert_refused(v, "shapes that do not fit together");
	at(v)->ne[1] = 2;
	v = permute(x);
	assert_passes();
	at(v)->nb[1] = 4;
	assert_refused(v, "shapes that do not fit together");
}

static void test_a_view_of_a_sort_picks_columns(void **state)
{
	uint32_t x, sorted, v;
	(void)state;
	x = input(OP_F32, 32, 8, 1);
	sorted = as_node(input(OP_I32, 32, 8, 1), WIRE_T_ARGSORT, x, 0, 0);
	v = view(WIRE_T_VIEW, sorted, 4, 8, 1, 0);
	at(v)->nb[1] = at(sorted)->nb[1];
	at(v)->nb[2] = at(v)->nb[3] = at(sorted)->nb[2];
	assert_passes();
	at(v)->ne[1] = 4;
	assert_refused(v, "shapes that do not fit together");
	at(v)->ne[1] = 8;
	at(v)->nb[1] = 16;
	assert_refused(v, "shapes that do not fit together");
}

static void test_shapes_types_and_parameters_must_fit(void **state)
{
	struct op_random r = {7};
	unsigned refused = 0, broken = 0;
	(void)state;

	for (unsigned i = 0; i < 40000; i++) { /* the real proof is run_graph */
		struct graph_index index[OP_GRAPH_MAX_TENSORS];
		struct graph_needs needs = {.index = index, .max_index = OP_GRAPH_MAX_TENSORS};
		struct graph_fault fault = {0};
		struct op_graph g;
		struct graph_env env;

		op_shapes_make(&g, i % op_shapes_count(), &r);
		op_shapes_relayout(&g, &r);
		op_shapes_mutate(&g, &r);
		op_shapes_mutate(&g, &r);
		env = op_shapes_env(&g);
		broken++;
		if (!graph_check(&env, g.t, g.n, &needs, &fault)) {
			refused++;
			assert_non_null(fault.why);
			assert_true(fault.tensor < g.n);
		}
	}
	assert_true(refused > broken / 2);
}

/* A slot without tokens; a declined node would have nowhere to run: the table is in our memory. */
static void test_no_rows_may_be_set(void **state)
{
	uint32_t table, none, rows, y;
	(void)state;
	table = weight(OP_F16, 64, 16, 2);
	rows = input(OP_F32, 64, 0, 2);
	none = input(OP_I64, 0, 2, 1);
	y = store(table, rows, none);
	at(y)->ne[2] = 2;
	strides(at(y));
	b.used[MEMORY] += 4096;
	assert_passes();
	assert_int_equal(b.needs.n_index, 0);
	at(none)->ne[0] = 1; /* an index without a row for it */
	strides(at(none));
	assert_refused(y, "shapes that do not fit together");
	at(none)->ne[0] = 0;
	at(none)->ne[1] = 0; /* the kernel divides by it */
	assert_refused(y, "shapes that do not fit together");
	at(none)->ne[1] = 2;
	at(rows)->ne[0] = 32;
	strides(at(rows));
	assert_refused(y, "shapes that do not fit together");
	at(rows)->ne[0] = 64;
	at(rows)->ne[1] = 1; /* a row without an index */
	strides(at(rows));
	assert_refused(y, "shapes that do not fit together");
}

static void test_other_operations_still_want_elements(void **state)
{
	uint32_t x, y;
	(void)state;
	x = input(OP_F32, 16, 0, 1);
	y = node(WIRE_T_SUM, 1, 1, 1, x, 0);
	b.used[MEMORY] += 64;
	assert_refused(y, "a source without elements");
	begin(state);
	y = node(WIRE_T_GET_ROWS_BACK, 16, 4, 1, input(OP_F32, 16, 8, 1), input(OP_I32, 0, 1, 1));
	b.used[MEMORY] += 64;
	assert_refused(y, "a source without elements");
}

static void test_rows_go_back_for_each_index(void **state)
{
	uint32_t grad, index, y;
	(void)state;
	grad = input(OP_F32, 16, 8, 1);
	index = input(OP_I32, 4, 1, 1);
	y = node(WIRE_T_GET_ROWS_BACK, 16, 5, 1, grad, index);
	assert_passes();
	assert_int_equal(b.index[0].limit, 5);
	at(grad)->ne[1] = 3; /* the kernel would read a fourth */
	assert_refused(y, "shapes that do not fit together");
}

static void test_a_product_widens_bf16_for_f32_only(void **state)
{
	uint32_t x, y, d;
	(void)state;
	x = input(OP_F32, 64, 64, 1);
	y = input(OP_BF16, 64, 8, 1);
	d = product(x, y);
	assert_passes();
	assert_int_equal(b.needs.scratch, 64 * 8 * 4);
	at(d)->params[1] = 1;
	assert_refused(d, "a type the operation cannot take");
	at(y)->type = OP_F16;
	assert_passes();
	assert_int_equal(b.needs.scratch, 64 * 8 * 4);
	at(d)->params[1] = 0;
	assert_refused(d, "a type the operation cannot take");
	at(y)->type = OP_BF16;
	at(x)->type = OP_F16;
	strides(at(x));
	assert_refused(d, "a type the operation cannot take");
}

static void test_a_copy_lies_on_its_source_or_apart_from_it(void **state)
{
	static const uint32_t copies[] = {WIRE_T_DUP, WIRE_T_CONT, WIRE_T_NORM, WIRE_T_RMS_NORM,
					  WIRE_T_L2_NORM};
	uint32_t x, d;

	(void)state;
	for (size_t i = 0; i < sizeof(copies) / sizeof(copies[0]); i++) {
		begin(state);
		x = input(OP_F32, 64, 8, 1);
		d = like(copies[i], x, 0);
		assert_passes();
		at(d)->offset = at(x)->offset; /* in place */
		assert_passes();
		at(d)->offset += 64;
		assert_refused(d, "a result partly over its source");
		at(d)->offset = at(x)->offset;
		at(d)->nb[1] += 64;
		at(d)->nb[2] = at(d)->nb[3] = at(d)->nb[1] * 8;
		assert_refused(d, "a result partly over its source");
	}
}

static void test_activations_in_bf16_need_a_ggml_that_computes_them(void **state)
{
	uint32_t x, y, d;

	(void)state;
	x = input(OP_BF16, 64, 8, 1);
	y = node(WIRE_T_GLU, 32, 8, 1, x, 0);
	at(y)->type = OP_BF16;
	strides(at(y));
	d = node(WIRE_T_SCALE, 32, 8, 1, y, 0);
	at(d)->type = OP_BF16;
	strides(at(d));
	at(y)->params[0] = WIRE_GLU_SWIGLU;
	assert_passes();
	at(y)->params[0] = WIRE_GLU_SWIGLU_CLAMP;
	assert_refused(y, "a type the operation cannot take");
	at(y)->params[0] = WIRE_GLU_SWIGLU_OAI;
	assert_refused(y, "a type the operation cannot take");
	at(y)->params[0] = WIRE_GLU_SWIGLU;
	b.old_ggml = true;
	assert_refused(y, "a type the operation cannot take");
}

static void test_an_outer_product_of_packed_numbers_repeats_nothing(void **state)
{
	uint32_t x, y, d;
	(void)state;
	x = input(Q4_K, 256, 8, 2);
	y = input(OP_F32, 16, 8, 2);
	d = node(WIRE_T_OUT_PROD, 256, 16, 2, x, y);
	assert_passes();
	assert_int_equal(b.needs.thread_scratch, 256 * 4);
	at(x)->ne[2] = 1;
	assert_refused(d, "shapes that do not fit together");
	at(x)->type = OP_F32;
	at(x)->offset = 0;
	strides(at(x));
	at(x)->ne[1] = at(y)->ne[1] = 1;
	assert_passes();
	at(x)->type = OP_BF16;
	at(x)->nb[0] = 2;
	assert_refused(d, "a type the operation cannot take");
}

/* Kernels that copy an operand need memory for all of its elements, however many share a byte. */
static void test_what_is_copied_does_not_overlap_itself(void **state)
{
	uint32_t k, x, y;
	(void)state;
	k = input(OP_F32, 4, 8, 64);
	x = input(OP_F32, 100, 64, 1);
	y = node(WIRE_T_CONV_TRANSPOSE_1D, 103, 8, 1, k, x);
	at(y)->params[0] = 1;
	assert_passes();
	at(k)->nb[2] = 4;
	assert_refused(y, "more scratch memory than is allowed");
	strides(at(k));
	at(x)->nb[1] = 4;
	assert_refused(y, "more scratch memory than is allowed");
	begin(state);
	k = input(OP_F32, 256, 8, 1);
	x = input(OP_F32, 256, 64, 1);
	y = product(k, x);
	assert_passes();
	at(x)->nb[1] = 512;
	assert_refused(y, "more scratch memory than is allowed");
	begin(state);
	k = input(OP_F32, 4, 4, 2);
	x = input(OP_F32, 100, 100, 1);
	y = node(WIRE_T_CONV_TRANSPOSE_2D, 103, 103, 2, k, x);
	at(y)->params[0] = 1;
	assert_passes();
	at(x)->nb[1] = 4;
	assert_refused(y, "more scratch memory than is allowed");
}

static void test_needs_are_those_of_the_neediest_node(void **state)
{
	uint32_t x;
	(void)state;
	x = product(weight(Q4_K, 256, 512, 1), input(OP_F32, 256, 100, 1));
	x = product(weight(OP_F32, 512, 64, 1), x); /* copies nothing */
	assert_passes();
	assert_int_equal(b.needs.scratch, 256 * 100 * 2);
	assert_int_equal(b.needs.thread_scratch, 0);
	assert_in_range(b.needs.time_ns, (256 * 512 + 512 * 64) * 100 / 2,
			(256 * 512 + 512 * 64) * 100 * 8);
	like(WIRE_T_SOFT_MAX, x, 0);
	assert_passes();
	assert_int_equal(b.needs.thread_scratch, 64 * 4);
}

static void test_work_is_bounded(void **state)
{
	const int64_t many = 1 << 16;
	uint32_t x, y;
	(void)state;
	x = input(OP_F32, many, many, 1);
	y = node(WIRE_T_MUL_MAT, many, many, 1, x, x);
	assert_refused(y, "more work than is allowed");
}

/* 405B with 4096 tokens, and more: it is run in slices. */
static void test_a_graph_may_have_any_number_of_nodes(void **state)
{
	uint32_t x, w;
	(void)state;
	x = input(OP_F32, 16384, 4096, 1);
	w = weight(Q4_K, 16384, 53248, 1);
	for (int i = 0; i < 1100; i++)
		product(w, x);
	assert_passes();
	assert_true(b.needs.time_ns > UINT64_C(400) * 3600 * 1000000000);
}

static bool query_ok(struct op_graph *g)
{
	struct graph_env env = op_shapes_env(g);
	struct graph_fault fault;

	return graph_check_query(&env, g->t, g->n, &fault);
}

/* Whoever asks before, as ggml's scheduler does, learns it when there is still somebody else to
 * compute it. */
static void test_what_is_too_much_work_is_said_to_who_asks(void **state)
{
	unsigned refused[WIRE_NUM_TENSOR_OPS] = {0}, n = 0;
	struct op_random r = {3};
	(void)state;

	for (unsigned i = 0; i < 400 * op_shapes_count(); i++) {
		struct graph_index index[OP_GRAPH_MAX_TENSORS];
		struct graph_needs needs = {.index = index, .max_index = OP_GRAPH_MAX_TENSORS};
		struct graph_fault fault = {0};
		struct graph_env env;
		struct op_graph g;
		bool passes;

		r.scale = 2u << op_random_below(&r, 14);
		op_shapes_make(&g, i % op_shapes_count(), &r);
		env = op_shapes_env(&g);
		passes = graph_check(&env, g.t, g.n, &needs, &fault);
		if (!passes && strcmp(fault.why, "more work than is allowed"))
			continue;
		refused[op_shapes_op(i % op_shapes_count())] += !passes;
		if (query_ok(&g) != passes)
			fail_msg("%s: check %d, query %d", wire_tensor_op_str[g.t[g.n - 1].op],
				 passes, !passes);
	}
	for (uint32_t op = 0; op < WIRE_NUM_TENSOR_OPS; op++)
		n += refused[op] > 0;
	print_message("%u operations can be too much work\n", n);
	assert_true(n > 30);
}

/* What cannot be interrupted may not take long; what can is a matter of a large model. */
static void test_a_node_is_short_or_can_be_cut(void **state)
{
	uint32_t x, y;
	(void)state;
	x = input(OP_F32, 64, 64, 1);
	y = node(WIRE_T_POOL_2D, 100, 100, 1, x, 0);
	at(y)->params[1] = at(y)->params[2] = 8192;
	at(y)->params[3] = at(y)->params[4] = 1;
	assert_refused(y, "a parameter out of range");
	at(y)->params[5] = at(y)->params[6] = 8192;
	assert_refused(y, "more work than is allowed");
	at(y)->params[1] = at(y)->params[2] = at(y)->params[5] = at(y)->params[6] = 1024;
	assert_refused(y, "more work than is allowed");
	b.accelerator = true; /* is done sooner */
	assert_passes();
	begin(state);
	product(weight(Q4_K, 8192, 28672, 1), input(OP_F32, 8192, 4096, 1)); /* 70B */
	x = node(WIRE_T_GLU, 28672, 4096, 1, input(OP_F32, 28672, 4096, 1),
		 input(OP_F32, 28672, 4096, 1));
	at(x)->params[0] = 2;
	assert_passes();
	begin(state);
	node(WIRE_T_SIN, 1 << 20, 1 << 10, 1, input(OP_F32, 1 << 20, 1 << 10, 1), 0);
	assert_passes(); /* row by row */
	begin(state);
	y = node(WIRE_T_SIN, 1 << 30, 1, 1, input(OP_F32, 1 << 30, 1, 1), 0);
	assert_refused(y, "more work than is allowed");
}

/* All pieces are of a kind that kernels compute in the same way as the whole. */
static void test_pieces_are_no_smaller_than_they_must_be(void **state)
{
	const struct op_cut cuts[] = {
		{.n = 40, .tile = 8, .small = 8},
		{.n = 500, .tile = 64, .small = 8},
		{.n = 5, .tile = 1, .small = 1},
	};
	(void)state;

	for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
		const struct op_cut *c = &cuts[i];

		for (int64_t wanted = -1; wanted < c->n + 10; wanted++) {
			int64_t least = wanted >= c->tile    ? c->tile
					: wanted >= c->small ? c->small
							     : 1;

			for (int64_t left = c->n, n; left; left -= n) {
				n = op_cut_round(c, wanted, left);
				assert_in_range(n, least, left);
				assert_true(n == left || n % least == 0);
			}
		}
	}
}

static int64_t pieces_of(uint32_t node)
{
	struct graph_env env = {.types = &op_shapes_types};
	struct op_args a = {.env = &env, .dst = at(node)};

	for (int i = 0; i < WIRE_MAX_SRC; i++)
		a.src[i] = at(node)->src[i] ? at(at(node)->src[i]) : NULL;
	return op_cut_of(&a).n;
}

static void test_large_images_can_be_cut(void **state)
{
	uint32_t x, y, kernel;
	(void)state;
	x = input(OP_F32, 512, 512, 256);
	y = node(WIRE_T_UPSCALE, 1024, 1024, 256, x, 0);
	at(y)->params[0] = 1;
	assert_passes();
	assert_int_equal(pieces_of(y), 256);
	y = node(WIRE_T_POOL_2D, 256, 256, 256, x, 0);
	at(y)->params[1] = at(y)->params[2] = at(y)->params[3] = at(y)->params[4] = 2;
	assert_passes();
	assert_int_equal(pieces_of(y), 256);
	x = input(OP_F32, 256, 256, 128);
	at(x)->ne[2] = 32;
	at(x)->ne[3] = 4;
	strides(at(x));
	kernel = weight(OP_F16, 3, 3, 32);
	y = as_node(input(OP_F16, 9 * 32, 256, 256 * 4), WIRE_T_IM2COL, kernel, x, 0);
	at(y)->ne[2] = 256;
	at(y)->ne[3] = 4;
	strides(at(y));
	for (int i = 0; i < 7; i++)
		at(y)->params[i] = 1;
	assert_passes();
	assert_int_equal(pieces_of(y), 4);
}

static void test_a_result_does_not_overlap_itself(void **state)
{
	uint32_t x, sorted, copy;
	(void)state;
	x = input(OP_F32, 256, 2, 1);
	sorted = as_node(input(OP_I32, 256, 2, 1), WIRE_T_ARGSORT, x, 0, 0);
	copy = as_node(input(OP_F32, 256, 2, 1), WIRE_T_CONT, x, 0, 0);
	assert_passes();
	at(sorted)->nb[1] = 208; /* found by run_graph: two threads sort into the same bytes */
	at(sorted)->nb[2] = at(sorted)->nb[3] = 416;
	assert_refused(sorted, "a result that overlaps itself");
	strides(at(sorted));
	at(copy)->nb[0] = 8; /* transposed: unusual, and no overlap */
	at(copy)->nb[1] = 4;
	assert_passes();
	at(copy)->nb[0] = 4;
	assert_refused(copy, "a result that overlaps itself");
}

/* ggml_cast(). */
static void test_a_copy_may_be_its_own_destination(void **state)
{
	uint32_t x, cast, sum;
	(void)state;
	x = input(OP_F32, 32, 4, 1);
	cast = input(OP_F16, 32, 4, 1);
	as_node(cast, WIRE_T_CPY, x, cast, 0);
	assert_passes();
	at(cast)->src[0] = cast;
	assert_refused(cast, "a source that does not come before");
	at(cast)->src[0] = x;
	at(cast)->src[2] = cast;
	assert_refused(cast, "a source that does not come before");
	at(cast)->src[2] = 0;
	at(cast)->view_src = cast;
	assert_refused(cast, "a view of what does not come before");
	at(cast)->view_src = 0;
	at(cast)->src[1] = cast + 1;
	assert_refused(cast, "a source that does not come before");
	at(cast)->src[1] = cast;
	sum = like(WIRE_T_ADD, x, x);
	assert_passes();
	at(sum)->src[1] = sum;
	assert_refused(sum, "a source that does not come before");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_operation_passes_in_its_plainest_form),
		cmocka_unit_test(test_every_operation_with_a_rule_has_a_shape),
		cmocka_unit_test_setup(test_a_decoder_passes_and_its_inputs_are_listed, begin),
		cmocka_unit_test_setup(test_a_mixture_of_experts_passes_without_more_index_tensors,
				       begin),
		cmocka_unit_test_setup(test_a_speech_encoder_passes, begin),
		cmocka_unit_test_setup(test_an_empty_batch_passes, begin),
		cmocka_unit_test_setup(test_a_large_graph_is_checked_in_microseconds, begin),
		cmocka_unit_test_setup(test_a_tensor_outside_of_its_buffer_is_refused, begin),
		cmocka_unit_test_setup(test_an_unsound_tensor_is_refused, begin),
		cmocka_unit_test_setup(test_references_point_backwards, begin),
		cmocka_unit_test_setup(test_a_view_lies_where_it_says, begin),
		cmocka_unit_test_setup(test_a_view_is_what_it_says, begin),
		cmocka_unit_test_setup(test_a_view_of_a_sort_picks_columns, begin),
		cmocka_unit_test_setup(test_shapes_types_and_parameters_must_fit, begin),
		cmocka_unit_test_setup(test_no_rows_may_be_set, begin),
		cmocka_unit_test_setup(test_other_operations_still_want_elements, begin),
		cmocka_unit_test_setup(test_rows_go_back_for_each_index, begin),
		cmocka_unit_test_setup(test_a_product_widens_bf16_for_f32_only, begin),
		cmocka_unit_test_setup(test_a_copy_lies_on_its_source_or_apart_from_it, begin),
		cmocka_unit_test_setup(test_activations_in_bf16_need_a_ggml_that_computes_them,
				       begin),
		cmocka_unit_test_setup(test_an_outer_product_of_packed_numbers_repeats_nothing,
				       begin),
		cmocka_unit_test_setup(test_what_is_copied_does_not_overlap_itself, begin),
		cmocka_unit_test_setup(test_needs_are_those_of_the_neediest_node, begin),
		cmocka_unit_test_setup(test_work_is_bounded, begin),
		cmocka_unit_test_setup(test_a_graph_may_have_any_number_of_nodes, begin),
		cmocka_unit_test(test_what_is_too_much_work_is_said_to_who_asks),
		cmocka_unit_test_setup(test_a_node_is_short_or_can_be_cut, begin),
		cmocka_unit_test(test_pieces_are_no_smaller_than_they_must_be),
		cmocka_unit_test_setup(test_large_images_can_be_cut, begin),
		cmocka_unit_test_setup(test_a_result_does_not_overlap_itself, begin),
		cmocka_unit_test_setup(test_a_copy_may_be_its_own_destination, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
