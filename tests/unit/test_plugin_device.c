/* SPDX-License-Identifier: Apache-2.0
 *
 * The plugin through the tables a program's ggml calls, with both generations of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "unit/plugin_rig.h"

static void move_data(enum abi_generation generation, uint32_t flags)
{
	enum { N = 300000 };
	static struct rig r;
	struct ggml_backend_buffer *b, *host;
	uint32_t *data = malloc(4 * N), *pinned;
	struct ggml_tensor t, u;

	begin(&r, generation, flags);
	b = alloc(&r.dev.buft, 16 * N);
	host = alloc(&r.dev.host_buft, 4 * N);
	pinned = host->iface.get_base(host);
	t = tensor(b, 64, N);
	u = tensor(b, 64 + 8 * N, N);
	for (uint32_t i = 0; i < N; i++)
		data[i] = i;
	b->iface.set_tensor(b, &t, data, 0, 4 * N);
	r.backend->iface.get_tensor_async(r.backend, &t, pinned, 0, 4 * N);
	r.backend->iface.synchronize(r.backend);
	assert_memory_equal(data, pinned, 4 * N);
	assert_int_equal(r.x.count[WIRE_OP_GET_SHM], flags & WIRE_WELCOME_SHM ? 1 : 0);

	pinned[5] = 123;
	r.backend->iface.set_tensor_async(r.backend, &u, pinned, 0, 4 * N);
	b->iface.memset_tensor(b, &u, 0xff, 0, 4);
	b->iface.get_tensor(b, &u, data, 0, 4 * N);
	assert_int_equal(data[5], 123);
	assert_int_equal(data[0], 0xffffffff);
	assert_true(b->iface.cpy_tensor(b, &u, &t));
	b->iface.get_tensor(b, &t, data, 20, 4);
	assert_int_equal(data[0], 123);

	/* rows of 8 bytes, 16 apart there and 12 apart here */
	for (uint32_t i = 0; i < 30; i++)
		data[i] = i;
	b->iface.set_tensor_2d(b, &t, data, 0, 8, 10, 16, 12);
	b->iface.get_tensor(b, &t, data, 16, 8);
	assert_int_equal(data[0], 3);
	assert_int_equal(data[1], 4);
	b->iface.get_tensor_2d(b, &t, data, 0, 8, 10, 16, 12);
	assert_int_equal(data[9 * 3], 27);
	b->iface.clear(b, 1);
	b->iface.get_tensor(b, &t, data, 0, 4);
	assert_int_equal(data[0], 0x01010101);

	/* a part handed over by the CPU: no wait */
	t.data = (char *)host->iface.get_base(host);
	t.buffer = host;
	assert_true(r.backend->iface.cpy_tensor_async(NULL, r.backend, &t, &u));
	t.buffer = NULL;
	assert_false(r.backend->iface.cpy_tensor_async(NULL, r.backend, &t, &u));
	release(host);
	release(b);
	end(&r);
	free(data);
}

static void test_data_goes_there_and_back(void **state)
{
	(void)state;
	move_data(ABI_V2, 0);
	move_data(ABI_V3, 0);
	move_data(ABI_V3, WIRE_WELCOME_SHM);
}

static void test_rows_go_there_and_back_without_a_wait(void **state)
{
	enum { ROWS = 10, N = 5 * ROWS };
	static struct rig r;
	struct ggml_backend_i *stream;
	struct ggml_backend_buffer *b;
	uint32_t data[N], back[N];
	struct ggml_tensor t;

	(void)state;
	begin(&r, ABI_V3, 0);
	stream = &r.backend->iface;
	b = alloc(&r.dev.buft, 4 * N);
	t = tensor(b, 0, N);
	for (uint32_t i = 0; i < N; i++)
		data[i] = i;
	memset(back, 0xff, sizeof(back));
	/* rows of 8 bytes: 12 apart here, 20 there, and 16 where they are read to */
	stream->set_tensor_2d_async(r.backend, &t, data, 4, 8, ROWS, 20, 12);
	memset(data, 0, sizeof(data)); /* taken already */
	stream->get_tensor_2d_async(r.backend, &t, back, 4, 8, ROWS, 20, 16);
	assert_int_equal(r.dev.chan->done, 1); /* the allocation */
	stream->synchronize(r.backend);
	for (uint32_t i = 0; i < ROWS; i++) {
		assert_int_equal(back[4 * i], 3 * i);
		assert_int_equal(back[4 * i + 1], 3 * i + 1);
		assert_int_equal(back[4 * i + 2], 0xffffffff);
	}
	assert_int_equal(r.x.count[WIRE_OP_SET_2D], 1);
	assert_int_equal(r.x.count[WIRE_OP_GET_2D], 1);
	assert_int_equal(r.x.count[WIRE_OP_FENCE], 0);

	t.buffer = NULL; /* nowhere: reads as zeroes */
	stream->set_tensor_2d_async(r.backend, &t, data, 4, 8, ROWS, 20, 12);
	stream->get_tensor_2d_async(r.backend, &t, back, 4, 8, ROWS, 20, 16);
	assert_int_equal(back[4] | back[5], 0);
	release(b);
	end(&r);
}

static void test_offsets_outside_are_dropped(void **state)
{
	static struct rig r;
	struct ggml_backend_buffer *b;
	struct ggml_tensor t;
	uint32_t x = 7;

	(void)state;
	begin(&r, ABI_V3, 0);
	b = alloc(&r.dev.buft, 64);
	t = tensor(b, 32, 8);
	b->iface.set_tensor(b, &t, &x, 32, 4);
	b->iface.get_tensor(b, &t, &x, 32, 4);
	assert_int_equal(x, 0);
	t.data = (char *)t.data - 100;
	b->iface.set_tensor(b, &t, &x, 0, 4);
	b->iface.memset_tensor(b, &t, 1, (size_t)-4, 8);
	release(b);
	end(&r);
}

static void test_weights_are_announced_with_their_uses(void **state)
{
	static struct rig r;
	struct ggml_backend_buffer *b, dummy = {0};
	struct ggml_tensor w, op = {.op = 1};
	uint32_t data[64] = {0};

	(void)state;
	begin(&r, ABI_V3, WIRE_WELCOME_REFERENCE);
	dummy.buft = &r.dev.buft;
	w = tensor(NULL, 0, 64);
	strcpy(w.name, "blk.0.ffn_up.weight");
	w.buffer = &dummy;
	op.src[0] = &w;
	assert_true(r.dev.abi.iface.supports_op(&r.dev.abi, &op));
	assert_true(r.dev.abi.iface.supports_op(&r.dev.abi, &op));
	assert_int_equal(r.x.count[GG_OP_SUPPORTS], 1); /* the second was remembered */
	op.op = 4;
	assert_false(r.dev.abi.iface.supports_op(&r.dev.abi, &op));
	op.op = 0;
	op.type = 2; /* not laid out alike: the executor has no such type */
	assert_int_equal(r.x.count[GG_OP_SUPPORTS], 1);
	op.op = 1;
	assert_false(r.dev.abi.iface.supports_op(&r.dev.abi, &op));

	b = alloc(&r.dev.buft, 4096);
	b->usage = ABI_USAGE_WEIGHTS;
	w.buffer = b;
	w.data = (char *)b->iface.get_base(b) + 128;
	b->iface.set_tensor(b, &w, data, 0, 128);
	b->iface.set_tensor(b, &w, data, 128, 128);
	b->iface.set_tensor(b, &w, data, 0, 128);
	b->iface.get_tensor(b, &w, data, 0, 4);
	assert_int_equal(r.x.count[GG_OP_WEIGHT], 1);
	assert_int_equal(r.x.weight.uses & WIRE_USE_MUL_MAT, WIRE_USE_MUL_MAT);
	assert_int_equal(r.x.weight.offset, 128);
	assert_int_equal(r.x.weight.ne[0], 64);
	release(b);
	end(&r);
}

static void test_a_failed_run_is_told_with_the_next(void **state)
{
	static struct rig r;
	struct ggml_backend_buffer *b;
	struct ggml_tensor t, *nodes[1] = {&t};
	struct ggml_cgraph graph = {.n_nodes = 1, .nodes = nodes, .uid = 9};

	(void)state;
	begin(&r, ABI_V3, 0);
	b = alloc(&r.dev.buft, 64);
	t = tensor(b, 0, 4);
	r.x.run = WIRE_E_FAILED;
	assert_int_equal(r.backend->iface.graph_compute(r.backend, &graph), ABI_STATUS_SUCCESS);
	r.backend->iface.synchronize(r.backend);
	assert_int_equal(r.backend->iface.graph_compute(r.backend, &graph), ABI_STATUS_FAILED);
	r.x.run = WIRE_OK;
	assert_int_equal(r.backend->iface.graph_compute(r.backend, &graph), ABI_STATUS_SUCCESS);
	r.backend->iface.synchronize(r.backend);
	assert_int_equal(r.backend->iface.graph_compute(r.backend, &graph), ABI_STATUS_SUCCESS);
	r.backend->iface.synchronize(r.backend);
	assert_int_equal(r.x.count[GG_OP_GRAPH_DEFINE], 2); /* told anew after the failure */
	release(b);
	end(&r);
}

static void test_a_killed_executor_is_a_failure_not_a_crash(void **state)
{
	static struct rig r;
	struct ggml_backend_buffer *b;
	struct ggml_backend_event *event;
	struct ggml_tensor t, *nodes[1] = {&t};
	struct ggml_cgraph graph = {.n_nodes = 1, .nodes = nodes};
	uint32_t data[4] = {1, 2, 3, 4};
	size_t free_bytes, total;
	struct ggml_tensor op = {.op = 1};

	(void)state;
	begin(&r, ABI_V3, WIRE_WELCOME_SHM);
	b = alloc(&r.dev.buft, 64);
	t = tensor(b, 0, 4);
	event = r.dev.abi.iface.event_new(&r.dev.abi);
	r.x.die_after = 1;
	assert_int_equal(r.backend->iface.graph_compute(r.backend, &graph), ABI_STATUS_SUCCESS);
	r.backend->iface.event_record(r.backend, event);
	b->iface.get_tensor(b, &t, data, 0, 16);
	assert_int_equal(data[0] | data[1] | data[2] | data[3], 0);
	r.dev.abi.iface.event_synchronize(&r.dev.abi, event);
	r.dev.abi.iface.event_free(&r.dev.abi, event);
	assert_int_equal(r.backend->iface.graph_compute(r.backend, &graph), ABI_STATUS_FAILED);
	assert_int_equal(r.backend->iface.graph_compute(r.backend, &graph), ABI_STATUS_FAILED);
	assert_null(r.dev.buft.v3.alloc_buffer(&r.dev.buft, 64));
	assert_true(r.dev.abi.iface.supports_op(&r.dev.abi, &op)); /* a "no" would abort ggml */
	r.dev.abi.iface.get_memory(&r.dev.abi, &free_bytes, &total);
	b->iface.set_tensor(b, &t, data, 0, 16);
	b->iface.clear(b, 0);
	release(alloc(&r.dev.host_buft, 4096)); /* ordinary memory is still to be had */
	release(b);
	end(&r);
}

static void test_memory_is_that_of_the_session_and_without_a_host_none_is_free(void **state)
{
	struct wire_device info = {.description = "test", .memory_total = 5, .memory_free = 5};
	static struct rig r;
	static struct gdev alone;
	size_t free_bytes, total;

	(void)state;
	begin(&r, ABI_V3, 0);
	r.dev.abi.iface.get_memory(&r.dev.abi, &free_bytes, &total);
	assert_int_equal(free_bytes, 7);
	assert_int_equal(total, 8);
	assert_int_equal(r.x.count[WIRE_OP_MEMORY], 1);
	end(&r);

	/* neither a session nor a list: what was known at the start, and nothing free */
	gplugin.target = (struct channel_target){.api = &wire_api_ggml,
						 .broker = "/nonexistent/broker.sock"};
	gdev_init(&alone, 0, &info);
	alone.abi.iface.get_memory(&alone.abi, &free_bytes, &total);
	assert_true(alone.open_failed);
	assert_int_equal(free_bytes, 0);
	assert_int_equal(total, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data_goes_there_and_back),
		cmocka_unit_test(test_rows_go_there_and_back_without_a_wait),
		cmocka_unit_test(test_offsets_outside_are_dropped),
		cmocka_unit_test(test_weights_are_announced_with_their_uses),
		cmocka_unit_test(test_a_failed_run_is_told_with_the_next),
		cmocka_unit_test(test_a_killed_executor_is_a_failure_not_a_crash),
		cmocka_unit_test(
			test_memory_is_that_of_the_session_and_without_a_host_none_is_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
