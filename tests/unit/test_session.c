/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/ggml/tensor_ops.h"
#include "base/fd.h"
#include "emulated.h"
#include "exec/file_map.h"
#include "exec/ggml/buffers.h"
#include "exec/mapping.h"
#include "exec/session.h"
#include "exec/stream.h"
#include "in_child.h"
#include "lib/bound.h"
#include "lib/fake_ggml.h"

struct peer {
	struct gg_device *device;
	int fd;
	struct wire_welcome welcome;
};

static struct peer connect_peer(struct gg_device *device, const char *machine, uint64_t quota)
{
	struct wire_hello hello = {.program = "test"};
	struct session_opts opts = {.hello = &hello,
				    .machine = machine,
				    .quota_bytes = quota,
				    .shm_ok = true};
	struct timeval limit = {.tv_sec = bound_ms(5000) / 1000};
	struct peer p = {.device = device};
	struct gg_welcome body;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	setsockopt(pair[1], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	opts.fd = pair[0];
	p.fd = pair[1];
	assert_int_equal(fake_session_start(device, &opts), 0);
	assert_int_equal(pil_read_all(p.fd, &p.welcome, sizeof(p.welcome)), 0);
	assert_int_equal(p.welcome.status, WIRE_OK);
	assert_int_equal(p.welcome.body_bytes, sizeof(body));
	assert_int_equal(pil_read_all(p.fd, &body, sizeof(body)), 0);
	return p;
}

enum { NOBODY_ELSE = 54321 }; /* a user with no processes, whom limits are kept for */

/* How a session is greeted where there may be @arg threads. */
static int greeted_with_few_threads(void *arg)
{
	struct gg_device *device = fake_device_new();
	struct wire_hello hello = {.program = "test"};
	struct session_opts opts = {.hello = &hello, .machine = "m"};
	struct rlimit most = {*(rlim_t *)arg, *(rlim_t *)arg};
	struct wire_welcome welcome;
	int pair[2];

	device->reference = true;
	device->n_threads = 64;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ||
	    (getuid() == 0 && setresuid(NOBODY_ELSE, NOBODY_ELSE, NOBODY_ELSE)) ||
	    setrlimit(RLIMIT_NPROC, &most))
		return 100;
	opts.fd = pair[0];
	if (fake_session_start(device, &opts) && most.rlim_cur > 8)
		return 101;
	if (pil_read_all(pair[1], &welcome, sizeof(welcome)))
		return 102;
	return welcome.status;
}

/* OpenMP and ggml end the process when they cannot start a thread. */
static void test_session_without_threads_to_compute_with_is_refused(void **state)
{
	rlim_t none = 1, some = 8;
	(void)state;

	assert_int_equal(in_child(greeted_with_few_threads, &none), WIRE_E_BUSY);
	assert_int_equal(in_child(greeted_with_few_threads, &some), WIRE_E_BUSY);
}

static void wait_until_gone(struct gg_device *device)
{
	for (int i = 0; i < bound_ms(5000) && card_n_sessions(device->card); i++)
		usleep(1000);
	assert_int_equal(card_n_sessions(device->card), 0);
}

static void send_op(struct peer *p, uint16_t op, const void *fixed, const void *tail,
		    uint32_t tail_bytes)
{
	static const char zero[8];
	uint32_t fixed_bytes = wire_op_find(&wire_api_ggml, op)->fixed_bytes;
	struct wire_frame f = {.op = op, .body_bytes = fixed_bytes + tail_bytes};
	struct iovec iov[] = {{&f, sizeof(f)},
			      {(void *)fixed, fixed_bytes},
			      {(void *)tail, tail_bytes},
			      {(void *)zero, wire_padded(tail_bytes) - tail_bytes}};

	assert_int_equal(pil_sendv_all(p->fd, iov, 4), 0);
}

static struct wire_answer expect_answer(struct peer *p, uint16_t op)
{
	struct wire_answer a;

	assert_int_equal(pil_read_all(p->fd, &a, sizeof(a)), 0);
	assert_int_equal(a.op, op);
	return a;
}

static struct wire_answer fence(struct peer *p)
{
	send_op(p, WIRE_OP_FENCE, &(struct wire_empty){0}, NULL, 0);
	return expect_answer(p, WIRE_OP_FENCE);
}

static enum wire_status alloc(struct peer *p, uint32_t handle, uint64_t bytes)
{
	send_op(p, WIRE_OP_BUFFER_ALLOC,
		&(struct wire_buffer_alloc){.buffer = handle, .bytes = bytes}, NULL, 0);
	return expect_answer(p, WIRE_OP_BUFFER_ALLOC).status;
}

/* @p is at its end, and @n_others sessions go on. */
static void expect_ended_but(struct peer *p, unsigned n_others)
{
	char c;

	assert_int_equal(read(p->fd, &c, 1), 0);
	for (int i = 0; i < bound_ms(5000) && card_n_sessions(p->device->card) > n_others; i++)
		usleep(1000);
	assert_int_equal(card_n_sessions(p->device->card), n_others);
}

static void expect_ended(struct peer *p)
{
	expect_ended_but(p, 0);
}

static int set_up(void **state)
{
	fake_memory_bytes = FAKE_MEMORY_BYTES;
	*state = fake_device_new();
	return 0;
}

static int tear_down(void **state)
{
	fake_device_free(*state);
	return 0;
}

static void test_what_is_set_comes_back(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	char data[1001], back[1001];
	struct wire_answer a;

	memset(data, 0x5a, sizeof(data));
	data[1000] = 7;
	assert_int_equal(alloc(&p, 1, 4096), WIRE_OK);
	send_op(&p, WIRE_OP_SET, &(struct wire_set){.buffer = 1, .offset = 99}, data, sizeof(data));
	send_op(&p, WIRE_OP_GET,
		&(struct wire_get){.buffer = 1, .offset = 99, .bytes = sizeof(data)}, NULL, 0);
	a = expect_answer(&p, WIRE_OP_GET);
	assert_int_equal(a.status, WIRE_OK);
	assert_int_equal(a.body_bytes, sizeof(data));
	assert_int_equal(pil_read_all(p.fd, back, sizeof(back)), 0);
	assert_memory_equal(data, back, sizeof(data));
	close(p.fd);
	wait_until_gone(*state);
}

static void test_new_memory_is_zero(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	static char back[700001];

	for (uint32_t round = 1; round <= 3; round++) {
		assert_int_equal(alloc(&p, round, sizeof(back)), WIRE_OK);
		send_op(&p, WIRE_OP_GET, &(struct wire_get){.buffer = round, .bytes = sizeof(back)},
			NULL, 0);
		expect_answer(&p, WIRE_OP_GET);
		assert_int_equal(pil_read_all(p.fd, back, sizeof(back)), 0);
		for (size_t i = 0; i < sizeof(back); i++)
			assert_int_equal(back[i], 0);
		send_op(&p, WIRE_OP_FILL,
			&(struct wire_fill){.buffer = round, .value = 0xee, .bytes = 4096}, NULL,
			0);
		send_op(&p, WIRE_OP_BUFFER_FREE, &(struct wire_buffer_free){.buffer = round}, NULL,
			0);
	}
	assert_int_equal(fence(&p).failed, WIRE_OK);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_quota_holds_over_all_sessions_of_a_machine(void **state)
{
	struct peer a = connect_peer(*state, "small", 1 << 20),
		    b = connect_peer(*state, "small", 1 << 20);
	struct peer other = connect_peer(*state, "other", 0);

	assert_int_equal(a.welcome.memory_total, 1 << 20);
	assert_int_equal(alloc(&a, 1, 700 << 10), WIRE_OK);
	assert_int_equal(alloc(&b, 1, 700 << 10), WIRE_E_NO_MEMORY);
	assert_int_equal(alloc(&other, 1, 4 << 20), WIRE_OK);
	close(a.fd);
	for (int i = 0;
	     i < bound_ms(5000) && card_n_sessions(((struct gg_device *)*state)->card) > 2; i++)
		usleep(1000);
	assert_int_equal(alloc(&b, 1, 700 << 10), WIRE_OK);
	close(b.fd);
	close(other.fd);
	wait_until_gone(*state);
}

/* Each may take a mapping of the executor's, of which a process can have 65530. */
static void test_buffers_of_a_machine_are_bounded_over_its_sessions(void **state)
{
	struct peer p[3], other = connect_peer(*state, "other", 0);
	const uint32_t each = MAPPING_MAX_OF_MACHINE / 2;

	static_assert(MAPPING_MAX_OF_MACHINE / 2 <= WIRE_MAX_BUFFERS, "in one session");
	for (int i = 0; i < 3; i++)
		p[i] = connect_peer(*state, "many", 0);
	for (int i = 0; i < 2; i++)
		for (uint32_t slot = 0; slot < each; slot++)
			assert_int_equal(alloc(&p[i], wire_handle(slot, 1), 64), WIRE_OK);
	assert_int_equal(alloc(&p[2], 1, 64), WIRE_E_NO_MEMORY);
	assert_int_equal(alloc(&other, 1, 64), WIRE_OK);
	send_op(&p[0], WIRE_OP_BUFFER_FREE, &(struct wire_buffer_free){.buffer = wire_handle(0, 1)},
		NULL, 0);
	fence(&p[0]);
	assert_int_equal(alloc(&p[2], 1, 64), WIRE_OK);
	assert_int_equal(alloc(&p[2], 2, 64), WIRE_E_NO_MEMORY);
	for (int i = 0; i < 3; i++)
		close(p[i].fd);
	close(other.fd);
	wait_until_gone(*state);
}

/* Eight of them would reach the kernel's limit, at which the executor ends. */
static void test_machines_that_act_together_leave_others_mappings(void **state)
{
	static _Atomic(uint32_t) own[200]; /* machines */
	uint32_t all = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
		while (mapping_take(&own[i]))
			all++;
		assert_true(own[i] <= MAPPING_MAX_OF_MACHINE);
		if (all + MAPPING_MAX_WHEN_SHORT <= MAPPING_MAX)
			assert_true(own[i] >= MAPPING_MAX_WHEN_SHORT);
	}
	assert_int_equal(all, MAPPING_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		for (uint32_t n = own[i]; n > 0; n--)
			mapping_give(&own[i]);
	assert_true(mapping_take(&own[0]));
	mapping_give(&own[0]);
}

static void test_out_of_range_access_ends_only_that_session(void **state)
{
	struct peer good = connect_peer(*state, "m", 0), bad = connect_peer(*state, "m", 0);

	assert_int_equal(alloc(&bad, 1, 64), WIRE_OK);
	send_op(&bad, WIRE_OP_FILL,
		&(struct wire_fill){.buffer = 1, .offset = 32, .bytes = UINT64_MAX - 8}, NULL, 0);
	for (char c; read(bad.fd, &c, 1) > 0;)
		;
	assert_int_equal(fence(&good).status, WIRE_OK);
	close(good.fd);
	close(bad.fd);
	wait_until_gone(*state);
}

static void test_rows_without_bytes_end_the_session(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);

	assert_int_equal(alloc(&p, 1, 64), WIRE_OK);
	send_op(&p, WIRE_OP_SET_2D, &(struct wire_set_2d){.buffer = 1, .n_rows = UINT32_MAX}, NULL,
		0);
	expect_ended(&p);
	close(p.fd);
	p = connect_peer(*state, "m", 0);
	assert_int_equal(alloc(&p, 1, 64), WIRE_OK);
	send_op(&p, WIRE_OP_GET_2D, &(struct wire_get_2d){.buffer = 1, .n_rows = UINT32_MAX}, NULL,
		0);
	expect_ended(&p);
	close(p.fd);
}

static void test_stale_handle_ends_the_session(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);

	assert_int_equal(alloc(&p, wire_handle(3, 1), 64), WIRE_OK);
	send_op(&p, WIRE_OP_BUFFER_FREE, &(struct wire_buffer_free){.buffer = wire_handle(3, 2)},
		NULL, 0);
	expect_ended(&p);
	close(p.fd);
}

static void test_whole_weight_goes_where_the_device_wants_it(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	struct wire_weight w = {.buffer = 1,
				.type = 0,
				.ne = {64, 8, 1, 1},
				.uses = WIRE_USE_MUL_MAT};
	float data[64 * 8] = {1};

	fake_weights_placed = 0;
	assert_int_equal(alloc(&p, 1, sizeof(data) * 4), WIRE_OK);
	send_op(&p, GG_OP_WEIGHT, &w, NULL, 0);
	send_op(&p, WIRE_OP_SET, &(struct wire_set){.buffer = 1}, data, sizeof(data) / 2);
	send_op(&p, WIRE_OP_SET, &(struct wire_set){.buffer = 1, .offset = sizeof(data) / 2}, data,
		sizeof(data) / 2);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(fake_weights_placed, 1);
	w.offset = sizeof(data);
	w.uses = WIRE_USE_MUL_MAT | WIRE_USE_OTHER; /* read by rows as well: stays plain */
	send_op(&p, GG_OP_WEIGHT, &w, NULL, 0);
	send_op(&p, WIRE_OP_SET, &(struct wire_set){.buffer = 1, .offset = sizeof(data)}, data,
		sizeof(data));
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(fake_weights_placed, 1);
	w.offset = 2 * sizeof(data);
	w.uses = WIRE_USE_MUL_MAT;
	w.ne[1] = 4;
	w.ne[3] = 2; /* one matrix per head: what is multiplied with them may be of any layout */
	send_op(&p, GG_OP_WEIGHT, &w, NULL, 0);
	send_op(&p, WIRE_OP_SET, &(struct wire_set){.buffer = 1, .offset = w.offset}, data,
		sizeof(data));
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(fake_weights_placed, 1);
	send_op(&p, WIRE_OP_GET, &(struct wire_get){.buffer = 1, .bytes = 4}, NULL, 0);
	assert_int_equal(expect_answer(&p, WIRE_OP_GET).status,
			 WIRE_E_UNSUPPORTED); /* cannot be read back */
	close(p.fd);
	wait_until_gone(*state);
}

static void test_shared_memory_must_be_sealed(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct {
		struct wire_frame f;
		struct wire_shm_add c;
	} add = {{WIRE_OP_SHM_ADD, 1, sizeof(add.c)}, {.shm = 1, .bytes = 65536}};
	char *mine = NULL;

	assert_int_equal(ftruncate(fd, 65536), 0);
	assert_int_equal(pil_send_fds(p.fd, &add, sizeof(add), &fd, 1), 0);
	assert_int_equal(expect_answer(&p, WIRE_OP_SHM_ADD).status, WIRE_E_UNSUPPORTED);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(pil_send_fds(p.fd, &add, sizeof(add), &fd, 1), 0);
	assert_int_equal(expect_answer(&p, WIRE_OP_SHM_ADD).status, WIRE_OK);
	mine = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	strcpy(mine, "through memory");
	assert_int_equal(alloc(&p, 1, 4096), WIRE_OK);
	send_op(&p, WIRE_OP_SET_SHM, &(struct wire_set_shm){.buffer = 1, .shm = 1, .bytes = 32},
		NULL, 0);
	send_op(&p, WIRE_OP_GET_SHM,
		&(struct wire_get_shm){.buffer = 1, .shm = 1, .shm_offset = 4096, .bytes = 32},
		NULL, 0);
	assert_int_equal(expect_answer(&p, WIRE_OP_GET_SHM).status, WIRE_OK);
	assert_string_equal(mine + 4096, "through memory");
	munmap(mine, 65536);
	close(fd);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_descriptor_that_no_frame_claims_ends_the_session(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	struct {
		struct wire_frame f;
		struct wire_empty c;
	} fence_frame = {{WIRE_OP_FENCE, 0, sizeof(fence_frame.c)}, {0}};
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_int_equal(pil_send_fds(p.fd, &fence_frame, sizeof(fence_frame), &fd, 1), 0);
	expect_ended(&p);
	close(fd);
	close(p.fd);
}

enum { WEIGHT_BYTES = 64 << 10, WEIGHT_AT = 4096 }; /* of the weight, and in its file */

/* A file of floats 0, 1, 2, ... (its first page apart). */
static int make_file(float *content)
{
	char path[] = "/tmp/pillion-test-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	for (int i = 0; i < WEIGHT_BYTES / 4; i++)
		content[i] = (float)i;
	assert_int_equal(pwrite(fd, content, WEIGHT_BYTES, WEIGHT_AT), WEIGHT_BYTES);
	return fd;
}

static enum wire_status add_file(struct peer *p, int fd, uint32_t kind, uint64_t bytes)
{
	struct {
		struct wire_frame f;
		struct wire_shm_add c;
	} add = {{WIRE_OP_SHM_ADD, 1, sizeof(add.c)}, {.shm = 1, .kind = kind, .bytes = bytes}};

	assert_int_equal(pil_send_fds(p->fd, &add, sizeof(add), &fd, 1), 0);
	return expect_answer(p, WIRE_OP_SHM_ADD).status;
}

/* Buffer 1 with a weight in file 1 at its start, used for more than products, and 4 KiB more. */
static void lend_weight(struct peer *p, int fd)
{
	struct wire_weight w = {.buffer = 1,
				.ne = {1024, 16, 1, 1},
				.uses = WIRE_USE_MUL_MAT | WIRE_USE_OTHER};

	assert_int_equal(add_file(p, fd, WIRE_SHM_FILE, WEIGHT_AT + WEIGHT_BYTES), WIRE_OK);
	assert_int_equal(alloc(p, 1, WEIGHT_BYTES + 4096), WIRE_OK);
	send_op(p, GG_OP_WEIGHT, &w, NULL, 0);
	send_op(p, WIRE_OP_SET_SHM,
		&(struct wire_set_shm){
			.buffer = 1, .shm = 1, .shm_offset = WEIGHT_AT, .bytes = WEIGHT_BYTES},
		NULL, 0);
	assert_int_equal(fence(p).failed, WIRE_OK);
}

static void get(struct peer *p, uint64_t offset, void *to, uint32_t bytes)
{
	send_op(p, WIRE_OP_GET, &(struct wire_get){.buffer = 1, .offset = offset, .bytes = bytes},
		NULL, 0);
	assert_int_equal(expect_answer(p, WIRE_OP_GET).status, WIRE_OK);
	assert_int_equal(pil_read_all(p->fd, to, bytes), 0);
}

static void test_weight_in_a_file_stays_there(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	static float content[WEIGHT_BYTES / 4], back[WEIGHT_BYTES / 4], half[2];
	const float other[2] = {-1, -2};
	int fd = make_file(content);

	lend_weight(&p, fd);
	get(&p, 0, back, WEIGHT_BYTES);
	assert_memory_equal(back, content, WEIGHT_BYTES);
	/* what is written stays with us */
	send_op(&p, WIRE_OP_SET, &(struct wire_set){.buffer = 1, .offset = 400}, other, 8);
	get(&p, 400, half, 8);
	assert_memory_equal(half, other, 8);
	assert_int_equal(pread(fd, half, 8, WEIGHT_AT + 400), 8);
	assert_memory_equal(half, content + 100, 8);
	/* across its end: both parts */
	send_op(&p, WIRE_OP_SET, &(struct wire_set){.buffer = 1, .offset = WEIGHT_BYTES}, other, 8);
	get(&p, WEIGHT_BYTES - 4, half, 8);
	assert_true(half[0] == content[WEIGHT_BYTES / 4 - 1] && half[1] == -1);
	get(&p, 400, half, 8);
	assert_memory_equal(half, other, 8);
	close(fd);
	close(p.fd);
	wait_until_gone(*state);
}

enum { NODE = WIRE_TENSOR_NODE | WIRE_TENSOR_COMPUTE };

static struct wire_tensor f32(uint32_t op, uint32_t flags, uint64_t offset)
{
	return (struct wire_tensor){.op = op,
				    .flags = flags,
				    .buffer = 1,
				    .offset = offset,
				    .ne = {16, 1, 1, 1},
				    .nb = {4, 64, 64, 64},
				    .name = "t"};
}

static void test_indices_do_not_stay_in_a_file(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	static float content[WEIGHT_BYTES / 4];
	enum { I32 = 26, ROWS_AT = WEIGHT_BYTES };
	/* rows of [4][2] floats, picked by the 16 integers the "weight" starts with */
	struct wire_tensor t[3] = {
		{.type = 0,
		 .buffer = 1,
		 .offset = ROWS_AT,
		 .ne = {4, 2, 1, 1},
		 .nb = {4, 16, 32, 32}},
		{.type = I32, .buffer = 1, .ne = {16, 1, 1, 1}, .nb = {4, 64, 64, 64}},
		{.op = WIRE_T_GET_ROWS,
		 .flags = WIRE_TENSOR_NODE | WIRE_TENSOR_COMPUTE,
		 .buffer = 1,
		 .offset = ROWS_AT + 64,
		 .ne = {4, 16, 1, 1},
		 .nb = {4, 16, 256, 256},
		 .src = {1, 2}},
	};
	int fd = make_file(content), after = 7;
	int32_t zero[16] = {0}, got = -1;

	assert_int_equal(pwrite(fd, zero, sizeof(zero), WEIGHT_AT), sizeof(zero));
	lend_weight(&p, fd);
	fake_graphs_computed = 0;
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 3}, t,
		sizeof(t));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(fake_graphs_computed, 1);
	assert_int_equal(pwrite(fd, &after, sizeof(after), WEIGHT_AT), sizeof(after));
	get(&p, 0, &got, sizeof(got));
	assert_int_equal(got, 0); /* not what the file says now */
	close(fd);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_what_is_sorted_does_not_stay_in_a_file(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	static float content[WEIGHT_BYTES / 4];
	enum { I32 = 26 };
	struct wire_tensor t[2] = {
		{.buffer = 1, .ne = {16, 1, 1, 1}, .nb = {4, 64, 64, 64}},
		{.op = WIRE_T_ARGSORT,
		 .flags = WIRE_TENSOR_NODE | WIRE_TENSOR_COMPUTE,
		 .type = I32,
		 .buffer = 1,
		 .offset = WEIGHT_BYTES,
		 .ne = {16, 1, 1, 1},
		 .nb = {4, 64, 64, 64},
		 .src = {1}},
	};
	int fd = make_file(content);
	const float after = -1;
	float got = 0;

	lend_weight(&p, fd);
	fake_graphs_computed = 0;
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 2}, t,
		sizeof(t));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(fake_graphs_computed, 1);
	assert_int_equal(pwrite(fd, &after, sizeof(after), WEIGHT_AT), sizeof(after));
	get(&p, 0, &got, sizeof(got));
	assert_true(got == content[0]);
	close(fd);
	close(p.fd);
	wait_until_gone(*state);
}

/* The kernel reads a factor per pair of the row, also beyond those it turns: of a weight that ends
 * with its file, beyond the mapping. */
static void test_what_a_graph_writes_to_does_not_stay_in_a_file(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	static float content[WEIGHT_BYTES / 4];
	struct wire_tensor t[2] = {f32(WIRE_T_NONE, 0, WEIGHT_BYTES), f32(WIRE_T_SQR, NODE, 4096)};
	int fd = make_file(content);
	const float after = -1;
	float got = 0;

	t[1].src[0] = 1;
	lend_weight(&p, fd);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 2}, t,
		sizeof(t));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(pwrite(fd, &after, sizeof(after), WEIGHT_AT), sizeof(after));
	get(&p, 0, &got, sizeof(got));
	assert_true(got == content[0]);
	close(fd);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_factors_of_a_rotation_do_not_stay_in_a_file(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	static float content[WEIGHT_BYTES / 4];
	enum { I32 = 26, N_DIMS = 8 };
	struct wire_tensor t[4] = {
		{.buffer = 1, .offset = WEIGHT_BYTES, .ne = {16, 1, 1, 1}, .nb = {4, 64, 64, 64}},
		{.type = I32,
		 .buffer = 1,
		 .offset = WEIGHT_BYTES + 64,
		 .ne = {1, 1, 1, 1},
		 .nb = {4, 4, 4, 4}},
		{.buffer = 1,
		 .offset = WEIGHT_BYTES - 16,
		 .ne = {N_DIMS / 2, 1, 1, 1},
		 .nb = {4, 16, 16, 16}},
		{.op = WIRE_T_ROPE,
		 .flags = WIRE_TENSOR_NODE | WIRE_TENSOR_COMPUTE,
		 .params = {[1] = N_DIMS},
		 .buffer = 1,
		 .offset = WEIGHT_BYTES + 128,
		 .ne = {16, 1, 1, 1},
		 .nb = {4, 64, 64, 64},
		 .src = {1, 2, 3}},
	};
	int fd = make_file(content);
	const float after = -1;
	float got = 0;

	lend_weight(&p, fd);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 4}, t,
		sizeof(t));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(pwrite(fd, &after, sizeof(after), WEIGHT_AT + 4), sizeof(after));
	get(&p, 4, &got, sizeof(got));
	assert_true(got == content[1]);
	close(fd);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_file_cut_short_ends_only_its_session(void **state)
{
	struct peer p = connect_peer(*state, "m", 0), other = connect_peer(*state, "m", 0);
	static float content[WEIGHT_BYTES / 4], back[WEIGHT_BYTES / 4];
	int fd = make_file(content);

	lend_weight(&p, fd);
	assert_int_equal(ftruncate(fd, 0), 0);
	get(&p, 0, back, 4096);
	expect_ended_but(&p, 1);
	assert_int_equal(fence(&other).failed, WIRE_OK);
	close(fd);
	close(p.fd);
	close(other.fd);
	wait_until_gone(*state);
}

static void test_only_files_that_can_be_mapped_are_taken(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	static float content[WEIGHT_BYTES / 4];
	int fd = make_file(content), folder = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
	    proc = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	skip_if_emulated("mappings are the emulator's");
	assert_int_equal(add_file(&p, fd, WIRE_SHM_FILE, WEIGHT_AT + WEIGHT_BYTES + 1),
			 WIRE_E_UNSUPPORTED);
	assert_int_equal(add_file(&p, fd, 7, 4096), WIRE_E_UNSUPPORTED);
	assert_int_equal(add_file(&p, folder, WIRE_SHM_FILE, 16), WIRE_E_UNSUPPORTED);
	assert_int_equal(add_file(&p, proc, WIRE_SHM_FILE, 16), WIRE_E_UNSUPPORTED);
	assert_int_equal(add_file(&p, fd, WIRE_SHM_FILE, 4096), WIRE_OK);
	assert_int_equal(alloc(&p, 1, 4096), WIRE_OK);
	/* nothing is ever written to a file */
	send_op(&p, WIRE_OP_GET_SHM, &(struct wire_get_shm){.buffer = 1, .shm = 1, .bytes = 16},
		NULL, 0);
	expect_ended(&p);
	close(folder);
	close(proc);
	close(fd);
	close(p.fd);
}

/* A sparse file of any size costs nothing to make. */
static void test_what_a_machine_may_have_mapped_is_bounded(void **state)
{
	struct peer p = connect_peer(*state, "m", 0), same = connect_peer(*state, "m", 0),
		    other = connect_peer(*state, "other", 0);
	const uint64_t all = 64 << 20 /* of the device */, huge = UINT64_C(3) << 40;
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	skip_if_emulated("mappings are the emulator's");
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1 /* as gcc says it */
#endif
#endif
#if defined(__SANITIZE_THREAD__)
	skip(); /* it leaves a program less than 2^42 addresses */
#endif
	assert_int_equal(ftruncate(fd, (off_t)huge), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(add_file(&p, fd, WIRE_SHM_MEMORY, all + 1), WIRE_E_NO_MEMORY);
	assert_int_equal(add_file(&p, fd, WIRE_SHM_MEMORY, all), WIRE_OK);
	assert_int_equal(add_file(&same, fd, WIRE_SHM_MEMORY, 4096), WIRE_E_NO_MEMORY);
	send_op(&p, WIRE_OP_SHM_DROP, &(struct wire_shm_drop){.shm = 1}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(add_file(&same, fd, WIRE_SHM_MEMORY, 4096), WIRE_OK);

	assert_int_equal(add_file(&p, fd, WIRE_SHM_FILE, huge), WIRE_OK);
	send_op(&same, WIRE_OP_SHM_DROP, &(struct wire_shm_drop){.shm = 1}, NULL, 0);
	assert_int_equal(add_file(&same, fd, WIRE_SHM_FILE, huge), WIRE_E_NO_MEMORY);
	assert_int_equal(add_file(&other, fd, WIRE_SHM_FILE, huge), WIRE_OK);
	close(fd);
	close(p.fd);
	close(same.fd);
	close(other.fd);
	wait_until_gone(*state);
}

/* As touching a hole does where the kernel has promised all its memory. */
static void test_memory_that_is_not_there_is_a_loss(void **state)
{
	int fd = memfd_create("test", MFD_CLOEXEC);
	unsigned before = file_map_n_lost();
	_Atomic(uint32_t) n = 0;
	struct file_map *map;
	volatile char *p;

	(void)state;
	assert_int_equal(ftruncate(fd, 65536), 0);
	map = file_map_open_memory(fd, 65536, &n);
	assert_non_null(map);
	p = file_map_memory(map);
	p[1] = 7;
	assert_false(file_map_lost(map));
	assert_int_equal(ftruncate(fd, 0), 0);
	p[8192] = 8;
	assert_true(file_map_lost(map));
	assert_int_equal(file_map_n_lost(), before + 1);
	assert_int_equal(p[1], 0);
	assert_int_equal(p[8192], 8);
	file_map_drop(map);
	close(fd);
}

/* Its pages cannot be replaced one by one, so a fault in it could not be mended. */
static void test_file_of_huge_pages_is_not_mapped(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);

	if (fd < 0 || ftruncate(fd, 2 << 20)) {
		close(p.fd);
		wait_until_gone(*state);
		skip(); /* a kernel without huge pages */
	}
	assert_int_equal(add_file(&p, fd, WIRE_SHM_FILE, 4096), WIRE_E_UNSUPPORTED);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	assert_int_equal(add_file(&p, fd, WIRE_SHM_MEMORY, 4096), WIRE_E_UNSUPPORTED);
	close(fd);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_graph_is_sent_once_patched_and_run_by_id(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	struct wire_tensor t[3] = {f32(WIRE_T_NONE, 0, 0), f32(WIRE_T_NONE, 0, 64),
				   f32(WIRE_T_ADD, NODE, 128)};
	struct {
		struct wire_run run;
		uint64_t word;
	} patch = {{.tensor = 2, .first = offsetof(struct wire_tensor, offset) / 8, .n_words = 1},
		   192};

	t[2].src[0] = 1;
	t[2].src[1] = 2;
	fake_graphs_computed = 0;
	assert_int_equal(alloc(&p, 1, 256), WIRE_OK);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 3}, t,
		sizeof(t));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	send_op(&p, GG_OP_GRAPH_PATCH, &(struct wire_graph_patch){.graph = 5, .n_runs = 1}, &patch,
		sizeof(patch));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(fake_graphs_computed, 2);
	assert_int_equal(fake_last_n_nodes, 1);
	patch.word = 256; /* behind the buffer's end: refused, and the session goes on */
	send_op(&p, GG_OP_GRAPH_PATCH, &(struct wire_graph_patch){.graph = 5, .n_runs = 1}, &patch,
		sizeof(patch));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_E_INVALID);
	assert_int_equal(fake_graphs_computed, 2);
	close(p.fd);
	wait_until_gone(*state);
}

/* The fake device computes nothing: what is in memory is what the graph is said to compute. */
static void test_an_index_the_graph_computes_is_looked_at_before_its_use(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	struct wire_tensor t[6] = {f32(WIRE_T_NONE, 0, 0),          f32(WIRE_T_NONE, 0, 64),
				   f32(WIRE_T_NONE, 0, 128),        f32(WIRE_T_SQR, NODE, 128),
				   f32(WIRE_T_GET_ROWS, NODE, 192), f32(WIRE_T_SQR, NODE, 64)};
	struct wire_set set = {.buffer = 1, .offset = 128};
	int32_t index[16] = {0};

	t[0].ne[0] = 1; /* 16 rows */
	t[0].ne[1] = 16;
	t[0].nb[1] = 4;
	t[2].type = 26;
	t[3].src[0] = 2;
	t[4].ne[0] = 1;
	t[4].ne[1] = 16;
	t[4].nb[1] = 4;
	t[4].src[0] = 1;
	t[4].src[1] = 3;
	t[5].src[0] = 2;
	fake_graphs_computed = 0;
	assert_int_equal(alloc(&p, 1, 256), WIRE_OK);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 6}, t,
		sizeof(t));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(fake_graphs_computed, 2);
	assert_int_equal(fake_last_n_nodes, 2);
	index[15] = 16;
	send_op(&p, WIRE_OP_SET, &set, index, sizeof(index));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_E_INVALID);
	assert_int_equal(fake_graphs_computed, 3); /* not the part that reads it */
	assert_int_equal(fake_last_n_nodes, 1);
	close(p.fd);
	wait_until_gone(*state);
}

/* As after ggml_build_forward_select(). */
static void test_a_node_that_is_not_computed_is_none_for_the_back_end(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	struct wire_tensor t[3] = {f32(WIRE_T_NONE, 0, 0), f32(WIRE_T_SQR, WIRE_TENSOR_NODE, 64),
				   f32(WIRE_T_SQR, NODE, 128)};

	t[1].src[0] = 1;
	t[2].src[0] = 2;
	fake_graphs_computed = 0;
	assert_int_equal(alloc(&p, 1, 256), WIRE_OK);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 3}, t,
		sizeof(t));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(fake_graphs_computed, 1);
	assert_int_equal(fake_last_n_nodes, 1);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_graph_on_a_freed_buffer_is_not_run(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	struct wire_tensor t[2] = {f32(WIRE_T_NONE, 0, 0), f32(WIRE_T_SQR, NODE, 64)};

	t[1].src[0] = 1;
	fake_graphs_computed = 0;
	assert_int_equal(alloc(&p, 1, 256), WIRE_OK);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 2}, t,
		sizeof(t));
	send_op(&p, WIRE_OP_BUFFER_FREE, &(struct wire_buffer_free){.buffer = 1}, NULL, 0);
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_E_INVALID);
	assert_int_equal(fake_graphs_computed, 0);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_graphs_of_a_session_are_bounded(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	uint32_t n = WIRE_MAX_TENSORS;
	struct wire_tensor *t = calloc(n, sizeof(*t));
	unsigned refused = 0;

	fake_memory_bytes = (size_t)1 << 40;
	assert_int_equal(alloc(&p, 1, 64), WIRE_OK);
	for (uint32_t i = 0; i < n; i++)
		t[i] = f32(WIRE_T_NONE, 0, 0);
	for (uint32_t slot = 1; slot <= 6; slot++) {
		struct wire_graph_define define = {.graph = slot, .n_tensors = n};

		send_op(&p, GG_OP_GRAPH_DEFINE, &define, t, (uint32_t)(n * sizeof(*t)));
		refused += fence(&p).failed == WIRE_E_NO_MEMORY;
	}
	assert_int_equal(refused, 2);
	free(t);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_graphs_of_a_machine_are_bounded(void **state)
{
	const uint32_t n = WIRE_MAX_TENSORS;
	struct wire_tensor *t = calloc(n, sizeof(*t)); /* refused, and kept until patched */
	struct peer p[5];
	unsigned refused = 0;

	fake_memory_bytes = (size_t)1 << 40;
	for (uint32_t i = 0; i < 5; i++) {
		p[i] = connect_peer(*state, "m", 0);
		for (uint32_t slot = 1; slot <= 4; slot++) {
			struct wire_graph_define define = {.graph = slot, .n_tensors = n};

			send_op(&p[i], GG_OP_GRAPH_DEFINE, &define, t, (uint32_t)(n * sizeof(*t)));
			refused += fence(&p[i]).failed == WIRE_E_NO_MEMORY;
		}
		assert_int_equal(refused, i < 4 ? 0 : 4);
	}
	for (uint32_t i = 0; i < 5; i++)
		close(p[i].fd);
	free(t);
	wait_until_gone(*state);
}

static void *send_large_frame(void *arg)
{
	struct peer p = {.fd = *(int *)arg};
	const uint32_t n = WIRE_MAX_TENSORS / 2;
	struct wire_tensor *t = calloc(n, sizeof(*t));

	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 1, .n_tensors = n}, t,
		(uint32_t)(n * sizeof(*t)));
	free(t);
	send_op(&p, WIRE_OP_FENCE, &(struct wire_empty){0}, NULL, 0);
	return NULL;
}

static void test_what_is_forgotten_of_a_large_frame_takes_no_room(void **state)
{
	struct account *account = account_get(((struct gg_device *)*state)->card, "m", 0);
	struct wire_frame f;
	struct stream s;
	const void *fixed;
	pthread_t sender;
	size_t before;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(stream_init(&s, pair[0], &wire_api_ggml, account), 0);
	before = s.in_cap;
	assert_int_equal(pthread_create(&sender, NULL, send_large_frame, &pair[1]), 0);
	assert_int_equal(stream_next(&s, &f, &fixed), 1);
	assert_int_equal(stream_tail_skip(&s, &f), 0);
	assert_int_equal(stream_next(&s, &f, &fixed), 1);
	assert_int_equal(f.op, WIRE_OP_FENCE);
	pthread_join(sender, NULL);
	close(pair[1]);
	assert_int_equal(stream_next(&s, &f, &fixed), 0);
	assert_int_equal(s.in_cap, before);
	stream_finish(&s);
	account_put(account);
}

/* The header of a frame whose tail is still to come. */
static void send_head(int fd, uint16_t op, const void *fixed, uint32_t tail_bytes)
{
	uint32_t fixed_bytes = wire_op_find(&wire_api_ggml, op)->fixed_bytes;
	struct wire_frame f = {.op = op, .body_bytes = fixed_bytes + tail_bytes};
	struct iovec iov[] = {{&f, sizeof(f)}, {(void *)fixed, fixed_bytes}};

	assert_int_equal(pil_sendv_all(fd, iov, 2), 0);
}

static void test_frames_are_aligned_wherever_reads_end(void **state)
{
	char tail[16] = "0123456789abcde", into[16] = "";
	struct wire_frame f;
	const void *fixed;
	int pair[2];

	(void)state;
	for (uint32_t bytes = 1; bytes <= 8; bytes++)
		for (uint32_t there = 0; there <= wire_padded(bytes); there++) {
			struct stream s;

			assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
					 0);
			assert_int_equal(stream_init(&s, pair[0], &wire_api_ggml, NULL), 0);
			send_head(pair[1], WIRE_OP_SET, &(struct wire_set){.buffer = 1}, bytes);
			assert_int_equal(pil_write_all(pair[1], tail, there), 0);
			assert_int_equal(stream_next(&s, &f, &fixed), 1);
			assert_int_equal(pil_write_all(pair[1], tail + there,
						       wire_padded(bytes) - there),
					 0);
			send_head(pair[1], WIRE_OP_FENCE, &(struct wire_empty){77}, 0);
			assert_int_equal(stream_tail_into(&s, &f, into), 0);
			assert_memory_equal(into, tail, bytes);
			assert_int_equal(stream_next(&s, &f, &fixed), 1);
			assert_int_equal(f.op, WIRE_OP_FENCE);
			assert_int_equal((uintptr_t)fixed % 8, 0);
			assert_int_equal(((const struct wire_empty *)fixed)->reserved, 77);
			close(pair[1]);
			stream_finish(&s);
		}
}

/* More than the account gives for nothing, of @quota: what it then says is left. */
static uint64_t left_of(struct peer *p)
{
	struct wire_memory m;

	send_op(p, WIRE_OP_MEMORY, &(struct wire_empty){0}, NULL, 0);
	assert_int_equal(expect_answer(p, WIRE_OP_MEMORY).status, WIRE_OK);
	assert_int_equal(pil_read_all(p->fd, &m, sizeof(m)), 0);
	return m.free;
}

enum { QUOTA = 48 << 20 };

static void test_tables_count_in_the_quota(void **state)
{
	struct peer p = connect_peer(*state, "m", QUOTA);
	struct wire_weight w = {.buffer = 1, .ne = {8, 1, 1, 1}, .uses = WIRE_USE_OTHER};
	const uint32_t n = WIRE_MAX_TENSORS;
	struct wire_tensor *t = calloc(n, sizeof(*t));
	uint64_t before;

	assert_int_equal(alloc(&p, 1, 2 << 20), WIRE_OK);
	before = left_of(&p);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 1, .n_tensors = n}, t,
		(uint32_t)(n * sizeof(*t)));
	assert_int_equal(fence(&p).failed, WIRE_E_INVALID); /* no shapes; kept all the same */
	assert_true(left_of(&p) + n * sizeof(*t) < before + ACCOUNT_FREE_HELD_BYTES);
	before = left_of(&p);
	for (uint32_t i = 0; i < n / 2; i++, w.offset += 32)
		send_op(&p, GG_OP_WEIGHT, &w, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_true(left_of(&p) + n / 2 * sizeof(*t) < before);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 2, .n_tensors = n}, t,
		(uint32_t)(n * sizeof(*t)));
	assert_int_equal(fence(&p).failed, WIRE_E_NO_MEMORY);
	send_op(&p, GG_OP_GRAPH_FREE, &(struct wire_graph_free){.graph = 2}, NULL, 0);
	send_op(&p, GG_OP_GRAPH_FREE, &(struct wire_graph_free){.graph = 1}, NULL, 0);
	send_op(&p, WIRE_OP_BUFFER_FREE, &(struct wire_buffer_free){.buffer = 1}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(left_of(&p), QUOTA);
	free(t);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_unfinished_frames_count_in_the_quota(void **state)
{
	enum { N = 24, ROW = 4096 };
	struct wire_set_2d set = {.buffer = 1,
				  .n_rows = WIRE_MAX_DATA / ROW,
				  .row_bytes = ROW,
				  .stride = ROW};
	struct peer p[N], asks = connect_peer(*state, "m", QUOTA);
	uint64_t before = left_of(&asks);

	for (int i = 0; i < N; i++) {
		p[i] = connect_peer(*state, "m", QUOTA);
		assert_int_equal(alloc(&p[i], 1, ROW), WIRE_OK);
		send_head(p[i].fd, WIRE_OP_SET_2D, &set, WIRE_MAX_DATA);
	}
	for (int i = 0; i < 2000 && left_of(&asks) > 4 << 20; i++)
		usleep(1000);
	assert_true(left_of(&asks) <=
		    4 << 20); /* some have none, and are told with the next answer */
	for (int i = 0; i < N; i++)
		close(p[i].fd);
	for (int i = 0; i < 5000 && card_n_sessions(((struct gg_device *)*state)->card) > 1; i++)
		usleep(1000);
	assert_int_equal(left_of(&asks), before);
	close(asks.fd);
	wait_until_gone(*state);
}

static void test_patch_is_for_a_graph_and_of_its_size(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	struct wire_graph_patch patch = {.graph = 5, .n_runs = 1};
	struct wire_tensor t = f32(WIRE_T_NONE, 0, 0);

	/* refused before any of it arrives */
	send_head(p.fd, GG_OP_GRAPH_PATCH, &patch, WIRE_MAX_GRAPH_TAIL);
	expect_ended(&p);
	close(p.fd);
	p = connect_peer(*state, "m", 0);
	assert_int_equal(alloc(&p, 1, 256), WIRE_OK);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 1}, &t,
		sizeof(t));
	assert_int_equal(fence(&p).failed, WIRE_OK);
	send_head(p.fd, GG_OP_GRAPH_PATCH, &patch, 1024);
	expect_ended(&p);
	close(p.fd);
}

/* Both copies of a converted weight would be there, and only one is paid for. */
static void test_nothing_is_written_across_a_placed_weight(void **state)
{
	enum { AT = 64, BYTES = 256 << 10 };
	struct peer p = connect_peer(*state, "m", 0);
	struct wire_weight w = {.buffer = 1,
				.offset = AT,
				.ne = {1024, 64, 1, 1},
				.uses = WIRE_USE_MUL_MAT};
	struct wire_tensor t[2] = {f32(WIRE_T_NONE, 0, 0), f32(WIRE_T_FILL, NODE, 0)};
	char *data = calloc(1, BYTES);

	fake_weights_placed = 0;
	assert_int_equal(alloc(&p, 1, BYTES + 4096), WIRE_OK);
	send_op(&p, GG_OP_WEIGHT, &w, NULL, 0);
	send_op(&p, WIRE_OP_SET, &(struct wire_set){.buffer = 1, .offset = AT}, data, BYTES);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(fake_weights_placed, 1);
	t[1].src[0] = 1;
	for (uint64_t to = AT; to <= AT + BYTES; to += BYTES / 4) { /* before it, and ever more */
		t[1].ne[0] = (int64_t)to / 4;
		t[1].nb[1] = t[1].nb[2] = t[1].nb[3] = to;
		memcpy(t[0].ne, t[1].ne, sizeof(t[0].ne));
		memcpy(t[0].nb, t[1].nb, sizeof(t[0].nb));
		send_op(&p, GG_OP_GRAPH_DEFINE,
			&(struct wire_graph_define){.graph = 5, .n_tensors = 2}, t, sizeof(t));
		assert_int_equal(fence(&p).failed, to > AT ? WIRE_E_UNSUPPORTED : WIRE_OK);
	}
	free(data);
	close(p.fd);
	wait_until_gone(*state);
}

/* A small weight gives no whole page back. */
static void test_ends_of_placed_weights_count_in_the_quota(void **state)
{
	enum { BYTES = 1024, ALL = 24 << 20, N = ALL / BYTES };
	struct peer p = connect_peer(*state, "m", QUOTA);
	struct wire_weight w = {.buffer = 1, .ne = {16, 16, 1, 1}, .uses = WIRE_USE_MUL_MAT};
	float data[16 * 16] = {1};
	uint64_t after = 0;

	fake_weights_placed = 0;
	assert_int_equal(alloc(&p, 1, ALL), WIRE_OK);
	for (int round = 0; round < 2; round++) { /* the second time in the same places */
		for (uint32_t i = 0; i < N; i++) {
			w.offset = i * BYTES;
			send_op(&p, GG_OP_WEIGHT, &w, NULL, 0);
			send_op(&p, WIRE_OP_SET,
				&(struct wire_set){.buffer = 1, .offset = w.offset}, data,
				sizeof(data));
		}
		assert_int_equal(fence(&p).failed, WIRE_OK);
		assert_int_equal(fake_weights_placed, N * (round + 1));
		assert_true(round == 0 || left_of(&p) == after);
		after = left_of(&p);
	}
	/* 24 MiB twice, and the table of the weights: of that, 32 MiB are free */
	assert_true(after <= QUOTA - ALL - (4 << 20));
	send_op(&p, WIRE_OP_BUFFER_FREE, &(struct wire_buffer_free){.buffer = 1}, NULL, 0);
	assert_int_equal(left_of(&p), QUOTA);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_names_are_printable_when_ggml_sees_them(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	struct wire_tensor t[2] = {f32(WIRE_T_NONE, 0, 0), f32(WIRE_T_SQR, NODE, 64)};

	t[1].src[0] = 1;
	strcpy(t[1].name, "a b\33]0;owned\7\r\n\x80\x9b%s");
	assert_int_equal(alloc(&p, 1, 256), WIRE_OK);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 2}, t,
		sizeof(t));
	send_op(&p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_string_equal(fake_last_name, "a b?]0;owned?????%s");
	close(p.fd);
	wait_until_gone(*state);
}

/* Graph 5 on buffer 1. */
static void define_graph(struct peer *p)
{
	struct wire_tensor t[2] = {f32(WIRE_T_NONE, 0, 0), f32(WIRE_T_SQR, NODE, 64)};

	t[1].src[0] = 1;
	assert_int_equal(alloc(p, 1, 4 << 20), WIRE_OK);
	send_op(p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 2}, t,
		sizeof(t));
	assert_int_equal(fence(p).failed, WIRE_OK);
}

/* Graph 5, which would take ten seconds; returns when the device computes it. */
static void run_long_graph(struct peer *p)
{
	fake_graphs_computed = 0;
	fake_compute_ms = 10000;
	send_op(p, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	while (!__atomic_load_n(&fake_graphs_computed, __ATOMIC_SEQ_CST))
		usleep(1000);
	fake_compute_ms = 0;
}

static void test_graph_gives_way_when_others_wait_too_long(void **state)
{
	struct gg_device *device = *state;
	struct peer greedy = connect_peer(device, "a", 0), other = connect_peer(device, "b", 0);

	device->card->turn_max_us = 50000;
	define_graph(&greedy);
	define_graph(&other);
	run_long_graph(&greedy);
	send_op(&other, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&other).failed, WIRE_OK);
	assert_int_equal(fence(&greedy).failed, WIRE_E_FAILED);
	send_op(&greedy, GG_OP_GRAPH_RUN, &(struct wire_graph_run){.graph = 5}, NULL, 0);
	assert_int_equal(fence(&greedy).failed, WIRE_OK);
	close(greedy.fd);
	close(other.fd);
	wait_until_gone(device);
}

static void test_graph_ends_with_its_program(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);

	define_graph(&p);
	run_long_graph(&p);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_moving_much_takes_a_turn(void **state)
{
	struct peer p = connect_peer(*state, "m", 0);
	struct wire_copy copy = {.src_buffer = 1,
				 .dst_buffer = 1,
				 .dst_offset = 2 << 20,
				 .bytes = 2 << 20};

	define_graph(&p);
	send_op(&p, WIRE_OP_BUFFER_CLEAR, &(struct wire_buffer_clear){.buffer = 1}, NULL, 0);
	assert_true(fence(&p).device_us > 0);
	send_op(&p, WIRE_OP_FILL, &(struct wire_fill){.buffer = 1, .bytes = 2 << 20}, NULL, 0);
	assert_true(fence(&p).device_us > 0);
	send_op(&p, WIRE_OP_COPY, &copy, NULL, 0);
	assert_true(fence(&p).device_us > 0);
	copy.bytes = 4096;
	send_op(&p, WIRE_OP_COPY, &copy, NULL, 0);
	assert_int_equal(fence(&p).device_us, 0);
	close(p.fd);
	wait_until_gone(*state);
}

static void test_scratch_memory_counts(void **state)
{
	struct peer p = connect_peer(*state, "m", (8 << 20) + 4096);
	/* 1 MiB of F32 against F16: the product keeps half a MiB */
	struct wire_tensor t[3] = {
		{.type = 1, .buffer = 1, .ne = {1024, 1, 1, 1}, .nb = {2, 2048, 2048, 2048}},
		{.buffer = 1,
		 .offset = 4096,
		 .ne = {1024, 256, 1, 1},
		 .nb = {4, 4096, 1 << 20, 1 << 20}},
		{.op = WIRE_T_MUL_MAT,
		 .flags = WIRE_TENSOR_NODE | WIRE_TENSOR_COMPUTE,
		 .buffer = 1,
		 .offset = 2 << 20,
		 .ne = {1, 256, 1, 1},
		 .nb = {4, 4, 1024, 1024},
		 .src = {1, 2}},
	};

	assert_int_equal(alloc(&p, 1, 4 << 20), WIRE_OK);
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 5, .n_tensors = 3}, t,
		sizeof(t));
	assert_int_equal(fence(&p).failed, WIRE_OK);
	assert_int_equal(alloc(&p, 2, 4 << 20), WIRE_E_NO_MEMORY);
	assert_int_equal(alloc(&p, 2, (4 << 20) - (512 << 10) + 4096), WIRE_OK);
	t[1].ne[1] = t[2].ne[1] = 257; /* a row more */
	t[1].nb[2] = t[1].nb[3] = 257 * 4096;
	t[2].nb[2] = t[2].nb[3] = 257 * 4;
	send_op(&p, GG_OP_GRAPH_DEFINE, &(struct wire_graph_define){.graph = 6, .n_tensors = 3}, t,
		sizeof(t));
	assert_int_equal(fence(&p).failed, WIRE_E_NO_MEMORY);
	close(p.fd);
	wait_until_gone(*state);
}

/* Memory that nobody has touched yet is promised all the same. */
static void test_machines_together_get_what_the_host_has(void **state)
{
	struct peer a = connect_peer(*state, "a", 0), b = connect_peer(*state, "b", 0);

	assert_int_equal(alloc(&a, 1, 32 << 20), WIRE_OK);
	assert_int_equal(alloc(&b, 1, (32 << 20) - 4096), WIRE_OK);
	assert_int_equal(alloc(&a, 2, 8192), WIRE_E_NO_MEMORY);
	assert_int_equal(alloc(&a, 2, 4096), WIRE_OK);
	send_op(&b, WIRE_OP_BUFFER_FREE, &(struct wire_buffer_free){.buffer = 1}, NULL, 0);
	assert_int_equal(alloc(&b, 2, 8192), WIRE_OK);
	close(a.fd);
	close(b.fd);
	wait_until_gone(*state);
}

static void test_weight_in_a_file_takes_memory_when_it_leaves_it(void **state)
{
	struct peer p = connect_peer(*state, "m", 0), other = connect_peer(*state, "other", 0);
	static float content[WEIGHT_BYTES / 4];
	int fd = make_file(content);

	lend_weight(&p, fd);
	assert_int_equal(alloc(&other, 1, 32 << 20), WIRE_OK);
	assert_int_equal(alloc(&other, 2, (32 << 20) - 16384), WIRE_OK);
	send_op(&p, WIRE_OP_FILL, &(struct wire_fill){.buffer = 1, .bytes = 4}, NULL, 0);
	expect_ended_but(&p, 1);
	close(p.fd);
	p = connect_peer(*state, "m", 0);
	assert_int_equal(alloc(&p, 1, 16384), WIRE_OK);
	assert_int_equal(alloc(&p, 2, 4096), WIRE_E_NO_MEMORY);
	close(fd);
	close(p.fd);
	close(other.fd);
	wait_until_gone(*state);
}

static void test_weight_that_is_larger_converted_pays_for_it(void **state)
{
	/* the device asks for 64 bytes more of a matrix with seven rows */
	struct wire_weight w = {.buffer = 1, .ne = {1024, 7, 1, 1}, .uses = WIRE_USE_MUL_MAT};
	static float data[7 * 1024];

	for (uint64_t spare = 63; spare <= 64; spare++) {
		struct peer p = connect_peer(*state, "m", sizeof(data) + spare);

		fake_weights_placed = 0;
		assert_int_equal(alloc(&p, 1, sizeof(data)), WIRE_OK);
		send_op(&p, GG_OP_WEIGHT, &w, NULL, 0);
		send_op(&p, WIRE_OP_SET, &(struct wire_set){.buffer = 1}, data, sizeof(data));
		assert_int_equal(fence(&p).failed, WIRE_OK);
		assert_int_equal(fake_weights_placed, spare == 64);
		assert_int_equal(alloc(&p, 2, spare), spare == 64 ? WIRE_E_NO_MEMORY : WIRE_OK);
		close(p.fd);
		wait_until_gone(*state);
	}
}

static void test_stopped_reader_does_not_stop_another_session(void **state)
{
	struct peer stuck = connect_peer(*state, "a", 0), live = connect_peer(*state, "b", 0);

	assert_int_equal(alloc(&stuck, 1, 4 << 20), WIRE_OK);
	for (int i = 0; i < 4; i++) /* answers nobody reads: its thread blocks in the second */
		send_op(&stuck, WIRE_OP_GET, &(struct wire_get){.buffer = 1, .bytes = 4 << 20},
			NULL, 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(fence(&live).status, WIRE_OK);
	close(stuck.fd);
	close(live.fd);
	wait_until_gone(*state);
}

static void test_an_end_at_any_byte_is_an_end(void **state)
{
	struct {
		struct wire_frame f;
		struct wire_buffer_alloc c;
	} command = {{WIRE_OP_BUFFER_ALLOC, 0, sizeof(command.c)}, {.buffer = 1, .bytes = 64}};

	for (size_t n = 1; n < sizeof(command); n++) {
		struct peer p = connect_peer(*state, "m", 0);

		assert_int_equal(write(p.fd, &command, n), (ssize_t)n);
		shutdown(p.fd, SHUT_WR);
		expect_ended(&p);
		close(p.fd);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_session_without_threads_to_compute_with_is_refused),
		TEST(test_what_is_set_comes_back),
		TEST(test_new_memory_is_zero),
		TEST(test_quota_holds_over_all_sessions_of_a_machine),
		TEST(test_buffers_of_a_machine_are_bounded_over_its_sessions),
		TEST(test_machines_that_act_together_leave_others_mappings),
		TEST(test_out_of_range_access_ends_only_that_session),
		TEST(test_rows_without_bytes_end_the_session),
		TEST(test_stale_handle_ends_the_session),
		TEST(test_whole_weight_goes_where_the_device_wants_it),
		TEST(test_shared_memory_must_be_sealed),
		TEST(test_descriptor_that_no_frame_claims_ends_the_session),
		TEST(test_weight_in_a_file_stays_there),
		TEST(test_indices_do_not_stay_in_a_file),
		TEST(test_what_is_sorted_does_not_stay_in_a_file),
		TEST(test_what_a_graph_writes_to_does_not_stay_in_a_file),
		TEST(test_factors_of_a_rotation_do_not_stay_in_a_file),
		TEST(test_file_cut_short_ends_only_its_session),
		TEST(test_only_files_that_can_be_mapped_are_taken),
		TEST(test_what_a_machine_may_have_mapped_is_bounded),
		TEST(test_memory_that_is_not_there_is_a_loss),
		TEST(test_file_of_huge_pages_is_not_mapped),
		TEST(test_graph_is_sent_once_patched_and_run_by_id),
		TEST(test_an_index_the_graph_computes_is_looked_at_before_its_use),
		TEST(test_a_node_that_is_not_computed_is_none_for_the_back_end),
		TEST(test_graph_on_a_freed_buffer_is_not_run),
		TEST(test_graphs_of_a_session_are_bounded),
		TEST(test_graphs_of_a_machine_are_bounded),
		TEST(test_what_is_forgotten_of_a_large_frame_takes_no_room),
		TEST(test_frames_are_aligned_wherever_reads_end),
		TEST(test_tables_count_in_the_quota),
		TEST(test_unfinished_frames_count_in_the_quota),
		TEST(test_patch_is_for_a_graph_and_of_its_size),
		TEST(test_nothing_is_written_across_a_placed_weight),
		TEST(test_ends_of_placed_weights_count_in_the_quota),
		TEST(test_names_are_printable_when_ggml_sees_them),
		TEST(test_graph_gives_way_when_others_wait_too_long),
		TEST(test_graph_ends_with_its_program),
		TEST(test_moving_much_takes_a_turn),
		TEST(test_scratch_memory_counts),
		TEST(test_machines_together_get_what_the_host_has),
		TEST(test_weight_in_a_file_takes_memory_when_it_leaves_it),
		TEST(test_weight_that_is_larger_converted_pays_for_it),
		TEST(test_stopped_reader_does_not_stop_another_session),
		TEST(test_an_end_at_any_byte_is_an_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
