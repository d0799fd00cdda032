/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/ggml/tensor_ops.h"
#include "guest/ggml/cgraphs.h"
#include "guest/ggml/opmap.h"
#include "lib/fake_exec.h"
#include "link/channel.h"

enum { LAYERS = 40, OP_NONE = 0, OP_ADD = 1, OP_VIEW = 2, OP_CUSTOM = 3, OP_CPY = 4 };

static struct opmap map;

/* A chain of additions with a leaf and a view in each layer. */
struct chain {
	struct ggml_tensor leaf[LAYERS], view[LAYERS], sum[LAYERS];
	struct ggml_tensor *nodes[2 * LAYERS];
	struct ggml_cgraph graph;
};

static void set_shape(struct ggml_tensor *t, int64_t rows)
{
	t->ne[0] = 8;
	t->ne[1] = rows;
	t->ne[2] = t->ne[3] = 1;
	t->nb[0] = 4;
	t->nb[1] = 32;
	t->nb[2] = t->nb[3] = 32 * (size_t)rows;
}

static void chain_init(struct chain *c, int64_t rows, uintptr_t base)
{
	memset(c, 0, sizeof(*c));
	for (int i = 0; i < LAYERS; i++) {
		struct ggml_tensor *before = i ? &c->sum[i - 1] : &c->leaf[0];

		c->leaf[i].op = OP_CUSTOM; /* computed elsewhere: only its data counts here */
		c->view[i].op = OP_VIEW;
		c->view[i].src[0] = c->view[i].view_src = before;
		c->view[i].view_offs = 32;
		c->sum[i].op = OP_ADD;
		c->sum[i].src[0] = &c->view[i];
		c->sum[i].src[1] = &c->leaf[i];
		snprintf(c->sum[i].name, sizeof(c->sum[i].name), "sum-%d", i);
		set_shape(&c->leaf[i], rows);
		set_shape(&c->view[i], rows);
		set_shape(&c->sum[i], rows);
		c->leaf[i].data = (void *)(base + (uintptr_t)i * 1000);
		c->view[i].data = (void *)((uintptr_t)before->data + 32);
		c->sum[i].data = (void *)(base + 500000 + (uintptr_t)i * 1000);
		c->nodes[2 * i] = &c->view[i];
		c->nodes[2 * i + 1] = &c->sum[i];
	}
	c->graph.n_nodes = 2 * LAYERS;
	c->graph.nodes = c->nodes;
}

static bool locate(void *ctx, const struct ggml_tensor *t, uint32_t *buffer, uint64_t *offset)
{
	(void)ctx;
	*buffer = 77;
	*offset = (uintptr_t)t->data;
	return t->data != NULL;
}

static int set_up(void **state)
{
	(void)state;
	for (int i = 0; i < OPMAP_MAX_OPS; i++)
		map.op[i] = -1;
	map.op[OP_NONE] = WIRE_T_NONE;
	map.op[OP_ADD] = WIRE_T_ADD;
	map.op[OP_VIEW] = WIRE_T_VIEW;
	map.op[OP_CPY] = WIRE_T_CPY;
	map.block[0] = 1;
	map.bytes[0] = 4;
	return 0;
}

static void test_sources_come_before_their_users(void **state)
{
	const struct ggml_tensor *bad;
	struct cgraphs g = {0};
	static struct chain c;
	uint32_t n_nodes = 0;

	(void)state;
	chain_init(&c, 4, 1 << 20);
	assert_true(cgraphs_encode(&g, &c.graph, &map, locate, NULL, &bad));
	assert_int_equal(g.n_next, 3 * LAYERS);
	for (uint32_t i = 0; i < g.n_next; i++) {
		const struct wire_tensor *t = &g.next[i];

		n_nodes += t->flags & WIRE_TENSOR_NODE;
		assert_int_equal(t->buffer, 77);
		assert_true(t->view_src <= i);
		for (int s = 0; s < WIRE_MAX_SRC; s++)
			assert_true(t->src[s] <= i);
		if (!(t->flags & WIRE_TENSOR_NODE))
			assert_int_equal(t->op, WIRE_T_NONE);
	}
	assert_int_equal(n_nodes, 2 * LAYERS);
	assert_string_equal(g.next[g.n_next - 1].name, "sum-39");
	cgraphs_finish(&g);
}

static void test_what_cannot_be_told_is_refused(void **state)
{
	const struct ggml_tensor *bad;
	struct cgraphs g = {0};
	static struct chain c;

	(void)state;
	chain_init(&c, 4, 1 << 20);
	c.leaf[7].data = NULL; /* in no buffer of ours */
	assert_false(cgraphs_encode(&g, &c.graph, &map, locate, NULL, &bad));
	assert_ptr_equal(bad, &c.leaf[7]);
	chain_init(&c, 4, 1 << 20);
	c.sum[3].op = OP_CUSTOM;
	assert_false(cgraphs_encode(&g, &c.graph, &map, locate, NULL, &bad));
	assert_ptr_equal(bad, &c.sum[3]);
	chain_init(&c, 4, 1 << 20);
	c.nodes[9] = &c.sum[2]; /* twice */
	assert_false(cgraphs_encode(&g, &c.graph, &map, locate, NULL, &bad));
	cgraphs_finish(&g);
}

/* ggml_cast(). */
static void test_a_copy_may_be_its_own_destination(void **state)
{
	const struct ggml_tensor *bad;
	struct cgraphs g = {0};
	static struct chain c;
	const struct wire_tensor *cast;

	(void)state;
	chain_init(&c, 4, 1 << 20);
	c.sum[3].op = OP_CPY;
	c.sum[3].src[1] = &c.sum[3];
	assert_true(cgraphs_encode(&g, &c.graph, &map, locate, NULL, &bad));
	assert_int_equal(g.n_next, 3 * LAYERS - 1);
	cast = &g.next[0];
	while (cast->op != WIRE_T_CPY)
		cast++;
	assert_int_equal(cast->src[1], cast - g.next + 1);
	assert_true(cast->src[0] && cast->src[0] < cast->src[1]);
	cgraphs_finish(&g);
}

/* ggml leaves a view among the nodes of a device that only uses a copy of it. */
static void test_views_of_what_lies_elsewhere_are_left_out(void **state)
{
	const struct ggml_tensor *bad;
	struct cgraphs g = {0};
	static struct chain c;

	(void)state;
	chain_init(&c, 4, 1 << 20);
	c.view[5].data = NULL;
	c.sum[5].src[0] = &c.leaf[6];
	assert_true(cgraphs_encode(&g, &c.graph, &map, locate, NULL, &bad));
	assert_int_equal(g.n_next, 3 * LAYERS - 1);
	c.sum[5].src[0] = &c.view[5]; /* used after all */
	assert_false(cgraphs_encode(&g, &c.graph, &map, locate, NULL, &bad));
	assert_ptr_equal(bad, &c.view[5]);
	cgraphs_finish(&g);
}

/* What is to be trained is a node without an operation. */
static void test_data_may_be_among_the_nodes(void **state)
{
	const struct ggml_tensor *bad;
	struct cgraphs g = {0};
	static struct chain c;

	(void)state;
	chain_init(&c, 4, 1 << 20);
	c.leaf[6].op = OP_NONE;
	c.nodes[2] = &c.leaf[6]; /* before its use, in place of a view */
	c.sum[1].src[0] = &c.leaf[2];
	c.leaf[3].op = OP_NONE;
	c.nodes[20] = &c.leaf[3]; /* behind it */
	c.sum[10].src[0] = &c.leaf[2];
	assert_true(cgraphs_encode(&g, &c.graph, &map, locate, NULL, &bad));
	assert_int_equal(g.n_next, 3 * LAYERS - 2);
	cgraphs_finish(&g);
}

static void apply_patch(struct wire_tensor *t, uint32_t n, const struct cgraphs *g, uint32_t n_runs)
{
	uint32_t at = 0;

	for (uint32_t r = 0; r < n_runs; r++) {
		struct wire_run run;

		memcpy(&run, &g->patch[at++], sizeof(run));
		assert_true(run.tensor < n && run.n_words);
		assert_true(run.first + run.n_words <= WIRE_TENSOR_WORDS);
		memcpy((uint64_t *)&t[run.tensor] + run.first, &g->patch[at], run.n_words * 8u);
		at += run.n_words;
	}
	assert_int_equal(at, g->patch_words);
}

static void test_a_patch_turns_one_graph_into_the_other(void **state)
{
	const struct ggml_tensor *bad;
	struct cgraphs_entry e = {0};
	struct cgraphs g = {0};
	static struct chain c;

	(void)state;
	chain_init(&c, 4, 1 << 20);
	assert_true(cgraphs_encode(&g, &c.graph, &map, locate, NULL, &bad));
	e.n = g.n_next;
	e.tensors = malloc(e.n * sizeof(*e.tensors));
	memcpy(e.tensors, g.next, e.n * sizeof(*e.tensors));
	assert_int_equal(cgraphs_diff(&g, &e), 0);
	for (int round = 0; round < 200; round++) {
		uint32_t n_runs;

		for (uint32_t k = 0; k < 50; k++)
			((uint64_t *)&g.next[(uint32_t)rand() % e.n])[(uint32_t)rand() %
								      WIRE_TENSOR_WORDS] =
				(uint64_t)rand();
		n_runs = cgraphs_diff(&g, &e);
		apply_patch(e.tensors, e.n, &g, n_runs);
		assert_memory_equal(e.tensors, g.next, e.n * sizeof(*e.tensors));
	}
	free(e.tensors);
	cgraphs_finish(&g);
}

/* ---- what goes over the wire ---- */

struct setup {
	struct fake_exec x;
	struct channel *chan;
	struct cgraphs g;
};

static void begin(struct setup *s)
{
	memset(s, 0, sizeof(*s));
	assert_int_equal(channel_create_fd(&s->chan, &wire_api_ggml, fake_exec_start(&s->x), NULL),
			 0);
}

static void run(struct setup *s, struct chain *c)
{
	assert_int_equal(cgraphs_run(&s->g, s->chan, &c->graph, &map, locate, NULL),
			 ABI_STATUS_SUCCESS);
	assert_true(channel_synchronize(s->chan));
}

static void end(struct setup *s)
{
	channel_destroy(s->chan);
	fake_exec_finish(&s->x);
	assert_false(s->x.bad);
	cgraphs_finish(&s->g);
}

static void expect(const struct setup *s, unsigned defines, unsigned patches, unsigned runs)
{
	assert_int_equal(s->x.count[GG_OP_GRAPH_DEFINE], defines);
	assert_int_equal(s->x.count[GG_OP_GRAPH_PATCH], patches);
	assert_int_equal(s->x.count[GG_OP_GRAPH_RUN], runs);
}

static void test_the_same_uid_is_not_even_looked_at(void **state)
{
	static struct chain c;
	struct setup s;

	(void)state;
	begin(&s);
	chain_init(&c, 4, 1 << 20);
	c.graph.uid = 5;
	run(&s, &c);
	memset(c.sum, 0, sizeof(c.sum));
	run(&s, &c);
	expect(&s, 1, 0, 2);
	end(&s);
}

static void test_the_same_graph_rebuilt_is_only_run(void **state)
{
	static struct chain a, b;
	struct setup s;

	(void)state;
	begin(&s);
	chain_init(&a, 4, 1 << 20);
	chain_init(&b, 4, 1 << 20);
	a.graph.uid = 1;
	b.graph.uid = 2;
	run(&s, &a);
	run(&s, &b);
	run(&s, &a);
	expect(&s, 1, 0, 3);
	end(&s);
}

static void test_a_graph_of_nothing_but_foreign_views_is_not_sent(void **state)
{
	static struct chain c;
	struct setup s;

	(void)state;
	begin(&s);
	chain_init(&c, 4, 1 << 20);
	c.view[0].data = NULL;
	c.graph.n_nodes = 1;
	run(&s, &c);
	expect(&s, 0, 0, 0);
	end(&s);
}

static void test_moved_data_and_longer_contexts_are_patched(void **state)
{
	static struct chain c;
	struct setup s;

	(void)state;
	begin(&s);
	chain_init(&c, 4, 1 << 20);
	run(&s, &c);
	chain_init(&c, 4, 3 << 20); /* all of it elsewhere, same shapes */
	run(&s, &c);
	expect(&s, 1, 1, 2);
	for (int i = 0; i < LAYERS; i += 4)
		c.view[i].ne[1] = 3; /* a few other shapes */
	run(&s, &c);
	expect(&s, 1, 2, 3);
	end(&s);
}

static void test_prompt_and_generation_stay_warm_side_by_side(void **state)
{
	static struct chain c;
	struct setup s;

	(void)state;
	begin(&s);
	for (int round = 0; round < 5; round++) {
		chain_init(&c, 4, 1 << 20);
		run(&s, &c);
		chain_init(&c, 1, 1 << 20);
		run(&s, &c);
	}
	expect(&s, 2, 0, 10);
	end(&s);
}

static void test_old_graphs_make_room(void **state)
{
	static struct chain c;
	struct setup s;

	(void)state;
	begin(&s);
	for (int64_t rows = 1; rows <= 3 * CGRAPHS_KEPT; rows++) {
		chain_init(&c, rows, 1 << 20);
		run(&s, &c);
	}
	expect(&s, 3 * CGRAPHS_KEPT, 0, 3 * CGRAPHS_KEPT);
	run(&s, &c);
	chain_init(&c, 1, 1 << 20);
	run(&s, &c);
	expect(&s, 3 * CGRAPHS_KEPT + 1, 0, 3 * CGRAPHS_KEPT + 2);
	cgraphs_forget(&s.g);
	run(&s, &c);
	expect(&s, 3 * CGRAPHS_KEPT + 2, 0, 3 * CGRAPHS_KEPT + 3);
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sources_come_before_their_users),
		cmocka_unit_test(test_what_cannot_be_told_is_refused),
		cmocka_unit_test(test_a_copy_may_be_its_own_destination),
		cmocka_unit_test(test_views_of_what_lies_elsewhere_are_left_out),
		cmocka_unit_test(test_data_may_be_among_the_nodes),
		cmocka_unit_test(test_a_graph_of_nothing_but_foreign_views_is_not_sent),
		cmocka_unit_test(test_a_patch_turns_one_graph_into_the_other),
		cmocka_unit_test(test_the_same_uid_is_not_even_looked_at),
		cmocka_unit_test(test_the_same_graph_rebuilt_is_only_run),
		cmocka_unit_test(test_moved_data_and_longer_contexts_are_patched),
		cmocka_unit_test(test_prompt_and_generation_stay_warm_side_by_side),
		cmocka_unit_test(test_old_graphs_make_room),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
