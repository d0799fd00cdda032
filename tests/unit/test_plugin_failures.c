/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program gets when something that the plugin needs is not to be had: memory, whichever
 * piece of it, or the executor, from whichever command on.  Either a call says so, as ggml knows
 * it, or all data is right.  The same short program runs again and again, and a later thing fails
 * each time, until none does. */
#include <sys/mman.h>

#include "base/log.h"
#include "unit/plugin_rig.h"

enum { MOST_TRIES = 500, N = 100000, BYTES = 4 * N };

/* ---- calls that fail ---- */

static _Thread_local unsigned calls, fail_at; /* of the program's thread, not the executor's */

static bool fails(void)
{
	return fail_at && ++calls == fail_at;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
int __real_memfd_create(const char *name, unsigned flags);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset);
int __wrap_memfd_create(const char *name, unsigned flags);

void *__wrap_malloc(size_t n)
{
	return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
	return fails() ? NULL : __real_realloc(p, n);
}

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	return fails() ? MAP_FAILED : __real_mmap(at, n, prot, flags, fd, offset);
}

int __wrap_memfd_create(const char *name, unsigned flags)
{
	return fails() ? -1 : __real_memfd_create(name, flags);
}

/* ---- the program ---- */

struct program_run {
	struct rig r;
	bool told, same; /* a call said that it failed; what was written was read */
};

static void compute(struct program_run *p, struct ggml_cgraph *graph)
{
	if (p->r.backend->iface.graph_compute(p->r.backend, graph) != ABI_STATUS_SUCCESS)
		p->told = true;
}

static void use_buffers(struct program_run *p, struct ggml_backend_buffer *b,
			struct ggml_backend_buffer *host)
{
	static uint32_t data[N], got[N];
	struct ggml_tensor t = tensor(b, 0, N), u = tensor(b, BYTES, N), v = t, *nodes[] = {&t, &u};
	struct ggml_cgraph graph = {.n_nodes = 2, .nodes = nodes};
	struct ggml_backend *backend = p->r.backend;
	struct ggml_backend_device *abi = &p->r.dev.abi;
	struct ggml_backend_event *event = abi->iface.event_new(abi);
	uint32_t *pinned = host->iface.get_base(host);

	for (uint32_t i = 0; i < N; i++)
		data[i] = i;
	memset(got, 0xee, sizeof(got));
	snprintf(t.name, sizeof(t.name), "weight");
	b->iface.set_tensor(b, &t, data, 0, BYTES);
	b->iface.set_tensor_2d(b, &u, data, 0, 8, 100, 16, 12);
	memcpy(pinned, data, BYTES / 2);
	backend->iface.set_tensor_async(backend, &t, pinned, 0, BYTES / 2);
	compute(p, &graph);
	if (event)
		backend->iface.event_record(backend, event);
	v.ne[0] = 7; /* another graph */
	nodes[1] = &v;
	compute(p, &graph);
	backend->iface.get_tensor_async(backend, &t, pinned, 0, BYTES / 2);
	backend->iface.synchronize(backend);
	b->iface.get_tensor(b, &t, got, 0, BYTES);
	p->same = !memcmp(got, data, BYTES) && !memcmp(pinned, data, BYTES / 2);
	b->iface.get_tensor_2d(b, &u, got, 0, 8, 100, 16, 12);
	p->same = p->same && got[3 * 99] == 3 * 99;
	compute(p, &graph);
	backend->iface.synchronize(backend);
	compute(p, &graph); /* a failure is told with the next */
	if (event) {
		abi->iface.event_synchronize(abi, event);
		abi->iface.event_free(abi, event);
	}
}

static void use_device(struct program_run *p)
{
	struct gdev *dev = &p->r.dev;
	struct ggml_backend_buffer *b = dev->buft.v3.alloc_buffer(&dev->buft, 2 * BYTES);
	struct ggml_backend_buffer *host = dev->host_buft.v3.alloc_buffer(&dev->host_buft, BYTES);
	struct ggml_tensor op = {.op = 1};
	size_t free_bytes, total;

	p->told = p->told || !b || !host;
	dev->abi.iface.get_memory(&dev->abi, &free_bytes, &total);
	dev->abi.iface.supports_op(&dev->abi, &op);
	dev->buft.v3.get_alloc_size(&dev->buft, &op);
	if (b && host)
		use_buffers(p, b, host);
	if (host)
		release(host);
	if (b)
		release(b);
}

static void run_program(struct program_run *p, unsigned call, int frame, uint32_t flags)
{
	struct rig *r = &p->r;
	int fd;

	prepare(r, ABI_V3, flags);
	p->told = p->same = false;
	r->x.die_after = frame;
	fd = fake_exec_start(&r->x);
	calls = 0;
	fail_at = call;
	p->told = !connect_to(r, fd);
	r->backend = p->told ? NULL : r->dev.abi.iface.init_backend(&r->dev.abi, NULL);
	if (r->backend)
		use_device(p);
	else
		p->told = true;
	fail_at = 0;
	if (r->backend)
		r->backend->iface.free(r->backend);
	disconnect(r);
}

static void test_a_call_that_fails_is_told_or_does_no_harm(void **state)
{
	static struct program_run p;

	(void)state;
	for (uint32_t flags = 0; flags <= WIRE_WELCOME_SHM; flags += WIRE_WELCOME_SHM) {
		unsigned n = 1;

		for (; n < MOST_TRIES; n++) {
			run_program(&p, n, 0, flags);
			if (calls < n)
				break;
			if (!p.told && !p.same)
				fail_msg("call %u: nothing was told, and data is wrong", n);
			assert_false(p.r.x.bad);
		}
		print_message("%u calls\n", n - 1);
		assert_true(!p.told && p.same);
		assert_in_range(n, 15, MOST_TRIES - 1);
	}
}

static void test_an_executor_that_ends_at_any_command_is_a_failure(void **state)
{
	static struct program_run p;

	(void)state;
	for (uint32_t flags = 0; flags <= WIRE_WELCOME_SHM; flags += WIRE_WELCOME_SHM) {
		int n = 1;

		for (; n < MOST_TRIES; n++) {
			run_program(&p, 0, n, flags);
			if (!p.told && p.same)
				break; /* it had done all of it */
			if (!p.told)
				fail_msg("command %d: nothing was told, and data is wrong", n);
		}
		print_message("%d commands\n", n - 1);
		assert_in_range(n, 10, MOST_TRIES - 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_call_that_fails_is_told_or_does_no_harm),
		cmocka_unit_test(test_an_executor_that_ends_at_any_command_is_a_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
