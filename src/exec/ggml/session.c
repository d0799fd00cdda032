/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a session is a thread that reads commands in order and carries them out; it
 * blocks on its own peer only.  Commands without an answer leave their first failure in `failed`,
 * which the next answer carries.  A handler returns 0, or -errno to end the session: -EPROTO is for
 * a peer that breaks the rules of wire.h, which is counted and logged at most once a second.
 *
 * The only thing sessions share is the device: its memory accounts and the turn to compute, neither
 * of which is held while reading from or writing to a peer.  So a stopped peer stops nobody else.
 * A graph that runs is given up when its program has gone, or others have waited for too long,
 * where the back end can be told so. */
#include "session.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "buffers.h"
#include "fd.h"
#include "graphs.h"
#include "log.h"
#include "queued.h"
#include "run.h"
#include "shms.h"
#include "str.h"
#include "stream.h"

enum {
	FOLLOW_US = 4000,      /* graphs faster than this run where the program does */
	LONG_RUN_US = 100000,  /* after one as long we see whether its program is still there */
	ASKED_PER_LOOK = 32,   /* nodes of a graph that runs, per look at the clock */
	LONG_BYTES = 1 << 20,  /* moving as many takes the device as a graph does */
	PART_BYTES = 64 << 20, /* after moving as many, others may go first */
	BILL_US = 2000,        /* of a processor, outside of turns: is booked */
	BILL_COMMANDS = 16,    /* after as many short commands we look how much it is */
	SHORT_BYTES = 4096,    /* of a command */
};

struct session {
	struct gg_device *device;
	struct account *account;
	struct turn turn;
	struct ggml_backend *backend;
	struct runner runner;
	struct stream stream;
	struct buffers buffers;
	struct graphs graphs;
	struct shms shms;
	unsigned n_lost; /* file_map_n_lost() when we looked last */
	bool shm_ok;
	uint16_t failed;     /* first failure since the last answer */
	uint32_t device_us;  /* device time since the last answer */
	uint32_t last_graph; /* run last, and how often in a row, unchanged */
	uint32_t same_runs;
	int64_t last_run_us;
	int64_t billed_us;   /* of this thread's processor time */
	int64_t turn_cpu_us; /* what that was when the turn began */
	unsigned n_commands; /* since we looked */
	unsigned n_asked;    /* whether to stop, by the graph that runs */
	time_t looked_s;     /* for the peer, during a graph of more than a second */
	bool gone;           /* it was not there */
	int followed_cpu;    /* -1: this thread may run on all_cpus */
	cpu_set_t all_cpus;
	char *scratch; /* data on its way to or from a device without host memory */
	char program[WIRE_MAX_NAME * 4];
};

static struct log_limit protocol_errors;

/* ---- answers ---- */

static int answer_data(struct session *s, uint16_t op, enum wire_status status, uint64_t value,
		       const void *data, uint32_t bytes)
{
	struct wire_answer a = {
		.op = op,
		.status = (uint16_t)status,
		.failed = s->failed,
		.value = value,
		.body_bytes = bytes,
		.device_us = s->device_us,
	};

	s->failed = WIRE_OK;
	s->device_us = 0;
	return stream_answer(&s->stream, &a, data, bytes);
}

static int answer(struct session *s, uint16_t op, enum wire_status status)
{
	return answer_data(s, op, status, 0, NULL, 0);
}

/* Remembers the failure of a command that is not answered. */
static int note(struct session *s, enum wire_status status)
{
	if (status != WIRE_OK && s->failed == WIRE_OK)
		s->failed = (uint16_t)status;
	return 0;
}

/* There is no memory for the tail of a command. */
static int refuse_tail(struct session *s, const struct wire_frame *f)
{
	int err = stream_tail_skip(&s->stream, f);

	return err ? err : note(s, WIRE_E_NO_MEMORY);
}

static char *scratch(struct session *s)
{
	if (s->scratch || !account_hold(s->device, s->account, WIRE_MAX_DATA))
		return s->scratch;
	s->scratch = malloc(WIRE_MAX_DATA);
	if (!s->scratch)
		account_unhold(s->device, s->account, WIRE_MAX_DATA);
	return s->scratch;
}

/* ---- questions ---- */

static int on_memory(struct session *s, const struct wire_frame *f, const struct wire_empty *c)
{
	struct wire_memory m;

	(void)c;
	account_memory(s->device, s->account, &m.free, &m.total);
	return answer_data(s, f->op, WIRE_OK, 0, &m, sizeof(m));
}

/* The tensors of a query, or NULL when the count and the length disagree. */
static const struct wire_tensor *query_tensors(struct session *s, const struct wire_frame *f,
					       uint32_t n)
{
	uint32_t tail = f->body_bytes - (uint32_t)sizeof(struct wire_supports);

	if (n == 0 || n > WIRE_MAX_QUERY_TENSORS || tail != n * sizeof(struct wire_tensor))
		return NULL;
	return (const struct wire_tensor *)stream_tail(&s->stream, f);
}

static int on_supports(struct session *s, const struct wire_frame *f, const struct wire_supports *c)
{
	uint32_t n = c->n_tensors;
	const struct wire_tensor *t = query_tensors(s, f, n);
	bool offload = false, yes;

	if (!t)
		return -EPROTO;
	yes = graphs_supports(&s->graphs, t, n, &offload);
	return answer_data(s, f->op, WIRE_OK, (uint64_t)yes | (uint64_t)offload << 1, NULL, 0);
}

static int on_alloc_size(struct session *s, const struct wire_frame *f,
			 const struct wire_supports *c)
{
	uint32_t n = c->n_tensors;
	const struct wire_tensor *t = query_tensors(s, f, n);
	uint64_t bytes;

	if (!t)
		return -EPROTO;
	bytes = graphs_alloc_size(&s->graphs, t, n);
	return answer_data(s, f->op, bytes ? WIRE_OK : WIRE_E_INVALID, bytes, NULL, 0);
}

/* ---- the device's time ---- */

static int64_t thread_cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Books what this thread used of a processor outside of turns, when it is worth it.  May wait. */
static void bill(struct session *s)
{
	int64_t cpu_us = thread_cpu_us(), used_us = cpu_us - s->billed_us;

	if (used_us < BILL_US)
		return;
	device_bill(s->device, &s->turn, used_us);
	s->billed_us = thread_cpu_us();
}

/* At the end: does not wait. */
static void bill_rest(struct session *s)
{
	device_book(s->device, s->account, thread_cpu_us() - s->billed_us);
}

static void begin_turn(struct session *s)
{
	bill(s);
	device_turn_begin(s->device, &s->turn);
	s->turn_cpu_us = thread_cpu_us();
}

static void add_used(struct session *s, int64_t used_us)
{
	s->device_us += used_us < INT32_MAX ? (uint32_t)used_us : INT32_MAX;
}

static int64_t end_turn(struct session *s)
{
	int64_t used_us = device_turn_end(s->device, &s->turn);

	s->billed_us += thread_cpu_us() - s->turn_cpu_us; /* in the turn: booked as device time */
	add_used(s, used_us);
	return used_us;
}

/* Between two pieces of long work: others may go first. */
static void yield_turn(struct session *s)
{
	add_used(s, device_turn_yield(s->device, &s->turn));
}

/* Has the program closed its end?  Nobody is going to read what we compute. */
static bool peer_gone(struct session *s)
{
	struct pollfd p = {.fd = s->stream.fd};

	s->gone = poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR);
	return s->gone;
}

/* A back end that can be stopped asks between two nodes of a graph. */
static bool must_stop(void *arg)
{
	struct session *s = arg;
	struct timespec now;

	if (atomic_load_explicit(&s->turn.overdue, memory_order_relaxed))
		return true;
	if (++s->n_asked % ASKED_PER_LOOK)
		return s->gone;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec == s->looked_s || now.tv_sec <= s->turn.started_us / 1000000)
		return s->gone;
	s->looked_s = now.tv_sec;
	return peer_gone(s);
}

/* ---- buffers ---- */

static enum wire_status fill_in_turn(struct session *s, struct gg_buffer *buffer, uint64_t offset,
				     uint32_t value, uint64_t bytes)
{
	enum wire_status status = WIRE_OK;

	/* a whole buffer at once, if it is that; and nothing at all where part cannot be */
	if (!s->device->host_memory || gg_buffer_touches_placed(buffer, offset, bytes))
		return gg_buffer_fill(&s->buffers, buffer, offset, (uint8_t)value, bytes);
	for (uint64_t done = 0, n; done < bytes && status == WIRE_OK; done += n) {
		n = bytes - done < PART_BYTES ? bytes - done : PART_BYTES;
		if (done)
			yield_turn(s);
		status = gg_buffer_fill(&s->buffers, buffer, offset + done, (uint8_t)value, n);
	}
	return status;
}

static enum wire_status fill(struct session *s, struct gg_buffer *buffer, uint64_t offset,
			     uint32_t value, uint64_t bytes)
{
	enum wire_status status;

	if (bytes < LONG_BYTES)
		return gg_buffer_fill(&s->buffers, buffer, offset, (uint8_t)value, bytes);
	begin_turn(s);
	status = fill_in_turn(s, buffer, offset, value, bytes);
	end_turn(s);
	return status;
}

static int on_buffer_alloc(struct session *s, const struct wire_frame *f,
			   const struct wire_buffer_alloc *c)
{
	return answer(s, f->op, buffers_alloc(&s->buffers, c->buffer, c->bytes));
}

static int on_buffer_free(struct session *s, const struct wire_frame *f,
			  const struct wire_buffer_free *c)
{
	(void)f;
	return buffers_free(&s->buffers, c->buffer) ? 0 : -EPROTO;
}

static int on_buffer_clear(struct session *s, const struct wire_frame *f,
			   const struct wire_buffer_clear *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);

	(void)f;
	if (!buffer || c->value > 255)
		return -EPROTO;
	return note(s, fill(s, buffer, 0, c->value, buffer->bytes));
}

static int on_weight(struct session *s, const struct wire_frame *f, const struct wire_weight *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);

	(void)f;
	return buffer ? note(s, gg_buffer_weight(&s->buffers, buffer, c)) : -EPROTO;
}

static int on_fill(struct session *s, const struct wire_frame *f, const struct wire_fill *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);

	(void)f;
	if (!buffer || c->value > 255 || !gg_buffer_holds(buffer, c->offset, c->bytes))
		return -EPROTO;
	return note(s, fill(s, buffer, c->offset, c->value, c->bytes));
}

/* ---- data in ---- */

static int on_set(struct session *s, const struct wire_frame *f, const struct wire_set *c)
{
	uint32_t bytes = f->body_bytes - (uint32_t)sizeof(*c);
	uint64_t offset = c->offset;
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);
	const uint8_t *data;
	void *direct;

	if (!buffer || !gg_buffer_holds(buffer, offset, bytes))
		return -EPROTO;
	direct = gg_buffer_direct(&s->buffers, buffer, offset, bytes);
	if (direct) {
		int err = stream_tail_into(&s->stream, f, direct);

		if (!err)
			gg_buffer_received(&s->buffers, buffer, offset, bytes);
		return err;
	}
	if (!stream_reserve(&s->stream, f))
		return refuse_tail(s, f);
	data = stream_tail(&s->stream, f);
	return data ? note(s, gg_buffer_set(&s->buffers, buffer, offset, data, bytes)) : -EPIPE;
}

/* Rows without bytes are refused as well: there can be any number of them in one frame. */
static bool rows_valid(uint32_t n_rows, uint64_t row_bytes)
{
	return n_rows && row_bytes && row_bytes <= WIRE_MAX_DATA / n_rows;
}

static int on_set_2d(struct session *s, const struct wire_frame *f, const struct wire_set_2d *fixed)
{
	struct wire_set_2d c = *fixed;
	uint32_t bytes = f->body_bytes - (uint32_t)sizeof(c);
	struct gg_buffer *buffer = buffers_find(&s->buffers, c.buffer);
	enum wire_status status = WIRE_OK;
	const uint8_t *data;

	if (!buffer || !rows_valid(c.n_rows, c.row_bytes) || c.row_bytes * c.n_rows != bytes)
		return -EPROTO;
	if (!stream_reserve(&s->stream, f))
		return refuse_tail(s, f);
	data = stream_tail(&s->stream, f);
	if (!data)
		return -EPIPE;
	for (uint64_t i = 0, at = c.offset; i < c.n_rows && status == WIRE_OK; i++) {
		if (!gg_buffer_holds(buffer, at, c.row_bytes))
			return -EPROTO;
		status =
			gg_buffer_set(&s->buffers, buffer, at, data + i * c.row_bytes, c.row_bytes);
		if (__builtin_add_overflow(at, c.stride, &at))
			at = UINT64_MAX; /* refused by the next gg_buffer_holds() */
	}
	return note(s, status);
}

/* ---- data out ---- */

static int on_get(struct session *s, const struct wire_frame *f, const struct wire_get *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);
	uint32_t bytes = (uint32_t)c->bytes;
	enum wire_status status;
	const void *data;

	if (!buffer || c->bytes > WIRE_MAX_DATA || !gg_buffer_holds(buffer, c->offset, c->bytes))
		return -EPROTO;
	if (!buffer->n_weights && (data = gg_buffer_peek(&s->buffers, buffer, c->offset, c->bytes)))
		return answer_data(s, f->op, WIRE_OK, 0, data, bytes);
	if (!scratch(s))
		return answer(s, f->op, WIRE_E_NO_MEMORY);
	status = gg_buffer_get(&s->buffers, buffer, c->offset, s->scratch, bytes);
	return answer_data(s, f->op, status, 0, s->scratch, status == WIRE_OK ? bytes : 0);
}

static int on_get_2d(struct session *s, const struct wire_frame *f, const struct wire_get_2d *fixed)
{
	struct wire_get_2d c = *fixed;
	struct gg_buffer *buffer = buffers_find(&s->buffers, c.buffer);
	enum wire_status status = WIRE_OK;

	if (!buffer || !rows_valid(c.n_rows, c.row_bytes))
		return -EPROTO;
	if (!scratch(s))
		return answer(s, f->op, WIRE_E_NO_MEMORY);
	for (uint64_t i = 0, at = c.offset; i < c.n_rows && status == WIRE_OK; i++) {
		if (!gg_buffer_holds(buffer, at, c.row_bytes))
			return -EPROTO;
		status = gg_buffer_get(&s->buffers, buffer, at, s->scratch + i * c.row_bytes,
				       c.row_bytes);
		if (__builtin_add_overflow(at, c.stride, &at))
			at = UINT64_MAX;
	}
	return answer_data(s, f->op, status, 0, s->scratch,
			   status == WIRE_OK ? (uint32_t)(c.row_bytes * c.n_rows) : 0);
}

static enum wire_status copy(struct session *s, struct gg_buffer *src, struct gg_buffer *dst,
			     const struct wire_copy *c)
{
	enum wire_status status = WIRE_OK;

	for (uint64_t done = 0, n; done < c->bytes && status == WIRE_OK; done += n) {
		n = c->bytes - done < WIRE_MAX_DATA ? c->bytes - done : WIRE_MAX_DATA;
		if (done)
			yield_turn(s);
		status = gg_buffer_get(&s->buffers, src, c->src_offset + done, s->scratch, n);
		if (status == WIRE_OK)
			status = gg_buffer_set(&s->buffers, dst, c->dst_offset + done, s->scratch,
					       n);
	}
	return status;
}

static int on_copy(struct session *s, const struct wire_frame *f, const struct wire_copy *c)
{
	struct gg_buffer *src = buffers_find(&s->buffers, c->src_buffer);
	struct gg_buffer *dst = buffers_find(&s->buffers, c->dst_buffer);
	bool is_long = c->bytes >= LONG_BYTES;
	enum wire_status status;

	(void)f;
	if (!src || !dst || !gg_buffer_holds(src, c->src_offset, c->bytes) ||
	    !gg_buffer_holds(dst, c->dst_offset, c->bytes))
		return -EPROTO;
	if (!scratch(s))
		return note(s, WIRE_E_NO_MEMORY);
	if (is_long)
		begin_turn(s);
	status = copy(s, src, dst, c);
	if (is_long)
		end_turn(s);
	return note(s, status);
}

/* ---- shared memory ---- */

static int on_shm_add(struct session *s, const struct wire_frame *f, const struct wire_shm_add *c)
{
	_auto_fd int fd = stream_claim_fd(&s->stream);
	enum wire_status status;

	if (!s->shm_ok)
		return answer(s, f->op, WIRE_E_UNSUPPORTED);
	return shms_add(&s->shms, c, fd, &status) ? answer(s, f->op, status) : -EPROTO;
}

static int on_shm_drop(struct session *s, const struct wire_frame *f, const struct wire_shm_drop *c)
{
	(void)f;
	return shms_drop(&s->shms, c->shm) ? 0 : -EPROTO;
}

static int on_set_shm(struct session *s, const struct wire_frame *f, const struct wire_set_shm *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);
	struct shm *shm = shms_find(&s->shms, c->shm);

	(void)f;
	if (!buffer || !shm || !gg_buffer_holds(buffer, c->offset, c->bytes) ||
	    !shm_holds(shm, c->shm_offset, c->bytes))
		return -EPROTO;
	if (shm->is_file)
		return c->bytes ? note(s, gg_buffer_set_file(&s->buffers, buffer, c->offset,
							     shm->map, c->shm_offset, c->bytes))
				: -EPROTO;
	return note(s, gg_buffer_set(&s->buffers, buffer, c->offset,
				     file_map_memory(shm->map) + c->shm_offset, c->bytes));
}

/* In pieces: of memory that is lost, what is written takes our own. */
static enum wire_status get_to_memory(struct session *s, struct gg_buffer *buffer,
				      struct file_map *map, const struct wire_get_shm *c)
{
	char *to = file_map_memory(map) + c->shm_offset;
	enum wire_status status = WIRE_OK;

	for (uint64_t done = 0, n; done < c->bytes && status == WIRE_OK; done += n) {
		n = c->bytes - done < WIRE_MAX_DATA ? c->bytes - done : WIRE_MAX_DATA;
		status = gg_buffer_get(&s->buffers, buffer, c->offset + done, to + done, n);
		if (file_map_lost(map))
			status = WIRE_E_NO_MEMORY;
	}
	return status;
}

static int on_get_shm(struct session *s, const struct wire_frame *f, const struct wire_get_shm *c)
{
	struct gg_buffer *buffer = buffers_find(&s->buffers, c->buffer);
	struct shm *shm = shms_find(&s->shms, c->shm);

	if (!buffer || !shm || shm->is_file || !gg_buffer_holds(buffer, c->offset, c->bytes) ||
	    !shm_holds(shm, c->shm_offset, c->bytes))
		return -EPROTO;
	return answer(s, f->op, get_to_memory(s, buffer, shm->map, c));
}

/* ---- graphs ---- */

static void log_refusal(struct session *s, const char *what, enum wire_status status,
			const char *why)
{
	if (status != WIRE_OK && log_allowed(&protocol_errors))
		log_warn("session of %s: %s refused: %s", s->program, what,
			 why ? why : wire_status_str[status]);
}

static int on_graph_define(struct session *s, const struct wire_frame *f,
			   const struct wire_graph_define *fixed)
{
	struct wire_graph_define c = *fixed;
	uint32_t tail = f->body_bytes - (uint32_t)sizeof(c);
	struct wire_tensor *into;
	enum wire_status status;
	const char *why;
	int err;

	if (c.n_tensors > WIRE_MAX_TENSORS || tail != c.n_tensors * sizeof(*into) ||
	    !graphs_define(&s->graphs, c.graph, c.n_tensors, &into))
		return -EPROTO;
	s->last_graph = 0;
	if (!into)
		return refuse_tail(s, f);
	err = stream_tail_into(&s->stream, f, into);
	if (err)
		return err;
	status = graphs_defined(&s->graphs, c.graph, c.n_tensors, &why);
	log_refusal(s, "graph", status, why);
	return note(s, status);
}

/* The @n_runs of a patch as they come, @left bytes of them.  0 or -errno. */
static int take_runs(struct session *s, struct graph_patch *patch, uint32_t n_runs, uint32_t left)
{
	for (uint32_t i = 0; i < n_runs; i++) {
		struct wire_run run;
		const uint8_t *part;

		if (left < sizeof(run))
			return -EPROTO;
		part = stream_part(&s->stream, sizeof(run));
		if (!part)
			return -EPIPE;
		memcpy(&run, part, sizeof(run));
		left -= (uint32_t)sizeof(run);
		if (run.n_words > WIRE_TENSOR_WORDS || left < run.n_words * 8u)
			return -EPROTO;
		part = stream_part(&s->stream, run.n_words * 8u);
		if (!part)
			return -EPIPE;
		if (!graphs_patch_run(patch, &run, part))
			return -EPROTO;
		left -= run.n_words * 8u;
	}
	return left ? -EPROTO : 0;
}

static int on_graph_patch(struct session *s, const struct wire_frame *f,
			  const struct wire_graph_patch *fixed)
{
	struct wire_graph_patch c = *fixed;
	uint32_t tail = f->body_bytes - (uint32_t)sizeof(c);
	struct graph_patch patch;
	enum wire_status status;
	const char *why;
	int err;

	if (!graphs_patch(&s->graphs, c.graph, tail, &patch))
		return -EPROTO;
	err = take_runs(s, &patch, c.n_runs, tail);
	if (err)
		return err;
	s->last_graph = 0;
	status = graphs_patched(&s->graphs, &patch, &why);
	log_refusal(s, "graph patch", status, why);
	return note(s, status);
}

static void count_run(struct session *s, uint32_t graph)
{
	s->same_runs = graph == s->last_graph ? s->same_runs + 1 : 0;
	s->last_graph = graph;
}

/* On a reference device the program's thread and this one take turns: one waits while the other
 * works.  Handing over on the same CPU costs a context switch; on another it costs waking a halted
 * CPU, 50 to 100 us on a virtual machine, which a short graph feels.  So for short graphs we follow
 * the program to its CPU.  Only from the third run of the same graph on: another graph may want
 * another number of threads, and threads that ggml starts inherit our CPU mask.
 *
 * Measured on four CPUs with a 15M model: 0.66 to 0.92 of native before, 0.96 to 0.99 with. */
static void follow_cpu(struct session *s, int cpu)
{
	bool follow =
		s->same_runs > 2 && s->last_run_us < FOLLOW_US && cpu >= 0 && cpu < CPU_SETSIZE;
	cpu_set_t set;

	if (!s->device->reference || cpu == s->followed_cpu || (!follow && s->followed_cpu < 0))
		return;
	if (follow) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
	} else {
		set = s->all_cpus;
	}
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		s->followed_cpu = follow ? cpu : -1;
}

static int on_graph_run(struct session *s, const struct wire_frame *f,
			const struct wire_graph_run *c)
{
	enum wire_status status;
	struct graphs_run run;
	const char *why;
	int64_t used_us = 0;
	struct ggml_cgraph *part = graphs_run_begin(&s->graphs, &run, c->graph, &status, &why);

	(void)f;
	if (s->gone || (s->last_run_us > LONG_RUN_US && peer_gone(s)))
		return -EPIPE;
	if (!part) { /* refused, or empty */
		log_refusal(s, "graph run", status, why);
		return note(s, status);
	}
	count_run(s, c->graph);
	follow_cpu(s, c->cpu);
	begin_turn(s);
	status = runner_run(&s->runner, &s->graphs, &run, part, &used_us, &why);
	log_refusal(s, "graph run", status == WIRE_E_FAILED ? WIRE_OK : status, why);
	if (atomic_load(&s->turn.overdue) && log_allowed(&protocol_errors))
		log_warn("session of %s: a graph kept others waiting for too long", s->program);
	add_used(s, used_us);
	s->last_run_us = used_us + end_turn(s);
	return note(s, status);
}

static int on_graph_free(struct session *s, const struct wire_frame *f,
			 const struct wire_graph_free *c)
{
	(void)f;
	return graphs_free(&s->graphs, c->graph) ? 0 : -EPROTO;
}

static int on_fence(struct session *s, const struct wire_frame *f, const struct wire_empty *c)
{
	(void)c;
	return answer(s, f->op, WIRE_OK);
}

/* ---- the thread ---- */

static int dispatch(struct session *s, const struct wire_frame *f, const void *fixed)
{
	switch (f->op) {
#define OP(number, NAME, name, fixed_type, tail, answers)                                          \
	case number:                                                                               \
		return on_##name(s, f, (const fixed_type *)fixed);
#include "ops.def"
#undef OP
	default:
		return -EPROTO;
	}
}

static void welcome_fill(struct session *s, struct wire_welcome *w)
{
	const struct gg_device *d = s->device;

	*w = (struct wire_welcome){
		.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.status = WIRE_OK,
		.alignment = d->alignment,
		.max_buffer = d->max_buffer,
	};
	if (d->reference)
		w->flags |= WIRE_WELCOME_REFERENCE | WIRE_WELCOME_PLAIN_SIZE;
	if (s->shm_ok)
		w->flags |= WIRE_WELCOME_SHM;
	account_memory(s->device, s->account, &w->memory_free, &w->memory_total);
	graphs_known_ops(d->host, w);
	for (uint32_t i = 0; i < WIRE_MAX_TYPES; i++)
		if (d->host->types.block[i])
			w->types[w->n_types++] = (struct wire_type){i, d->host->types.block[i],
								    d->host->types.bytes[i], 0};
}

static int open_backend(struct session *s)
{
	typedef void (*set_n_threads_fn)(struct ggml_backend *, int);
	typedef void (*set_abort_fn)(struct ggml_backend *, bool (*)(void *), void *);
	const struct ggml_api *api = &s->device->host->api;
	struct ggml_backend_reg *reg = api->ggml_backend_dev_backend_reg(s->device->dev);
	set_n_threads_fn set_n_threads;
	set_abort_fn set_abort;
	void *f;

	s->backend = api->ggml_backend_dev_init(s->device->dev, NULL);
	if (!s->backend)
		return -ENODEV;
	f = api->ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
	memcpy(&set_n_threads, &f, sizeof(f));
	if (set_n_threads)
		set_n_threads(s->backend, s->device->n_threads);
	f = api->ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_abort_callback");
	memcpy(&set_abort, &f, sizeof(f));
	if (set_abort)
		set_abort(s->backend, must_stop, s);
	runner_init(&s->runner, s->device, &s->turn);
	s->runner.backend = s->backend;
	s->runner.must_stop = must_stop;
	s->runner.ctx = s;
	return 0;
}

static int send_welcome(struct session *s, int status)
{
	struct wire_welcome w = {.magic = WIRE_MAGIC,
				 .version = WIRE_VERSION,
				 .status = (uint16_t)status};
	struct iovec iov = {.iov_base = &w, .iov_len = sizeof(w)};

	if (status == WIRE_OK)
		welcome_fill(s, &w);
	return pil_sendv_all(s->stream.fd, &iov, 1);
}

/* What makes all that is computed from here on wrong; NULL: nothing. */
static const char *fault(struct session *s)
{
	unsigned n_lost = file_map_n_lost();

	if (n_lost != s->n_lost && shms_lost(&s->shms))
		return "no memory for what it shares with us";
	s->n_lost = n_lost;
	return buffers_fault(&s->buffers);
}

/* May take long by itself; a run has been booked. */
static bool is_long_command(const struct wire_frame *f)
{
	return f->body_bytes > SHORT_BYTES || f->op == WIRE_OP_GRAPH_DEFINE ||
	       f->op == WIRE_OP_GRAPH_PATCH || f->op == WIRE_OP_GET_2D || f->op == WIRE_OP_COPY ||
	       f->op == WIRE_OP_SET_SHM || f->op == WIRE_OP_GET_SHM;
}

static int serve(struct session *s)
{
	struct wire_frame frame;
	const void *fixed;
	const char *why;
	int n;

	if (open_backend(s))
		return send_welcome(s, WIRE_E_EXECUTOR);
	n = send_welcome(s, WIRE_OK);
	while (n == 0) {
		n = stream_next(&s->stream, &frame, &fixed);
		if (n <= 0)
			break;
		n = dispatch(s, &frame, fixed);
		if (is_long_command(&frame) || ++s->n_commands == BILL_COMMANDS) {
			s->n_commands = 0;
			bill(s);
		}
		if (n == -EPROTO && log_allowed(&protocol_errors))
			log_warn("session of %s: bad %s command: ended", s->program,
				 wire_op_info[frame.op].name);
		why = fault(s);
		if (why) {
			log_warn("session of %s: %s: ended", s->program, why);
			n = -EIO;
		}
	}
	return n;
}

static void session_destroy(struct session *s)
{
	graphs_finish(&s->graphs);
	buffers_finish(&s->buffers);
	if (s->backend)
		s->device->host->api.ggml_backend_free(s->backend);
	shms_finish(&s->shms);
	stream_finish(&s->stream);
	turn_finish(&s->turn);
	if (s->scratch)
		account_unhold(s->device, s->account, WIRE_MAX_DATA);
	free(s->scratch);
	account_put(s->device, s->account);
	free(s);
}

static void *session_main(void *arg)
{
	struct session *s = arg;
	int ret;

	queued_fds_allow(s->stream.fd); /* from here on a hang-up of its peer's making is its own */
	ret = serve(s);

	bill_rest(s);
	log_info("session of %s ended%s%s; machine %s has used %lld ms", s->program,
		 ret ? ": " : "", ret ? strerror(-ret) : "", s->account->machine,
		 (long long)(account_used_us(s->device, s->account) / 1000));
	session_destroy(s);
	return NULL;
}

int session_start(struct gg_device *device, const struct session_opts *opts, struct pil_err *err)
{
	struct session *s = calloc(1, sizeof(*s));
	char program[WIRE_MAX_NAME + 1] = "";
	pthread_attr_t attr;
	pthread_t thread;
	int ret;

	if (!s || !(s->account = account_get(device, opts->machine, opts->quota_bytes))) {
		free(s);
		close(opts->fd);
		return pil_err_set(err, ENOMEM, "start session");
	}
	account_weigh(device, s->account, opts->weight);
	s->device = device;
	turn_init(&s->turn, s->account);
	s->followed_cpu = -1;
	sched_getaffinity(0, sizeof(s->all_cpus), &s->all_cpus);
	s->shm_ok = opts->shm_ok;
	memcpy(program, opts->hello->program, WIRE_MAX_NAME);
	str_escape(s->program, sizeof(s->program), program);
	buffers_init(&s->buffers, device, s->account);
	graphs_init(&s->graphs, device, &s->buffers);
	shms_init(&s->shms, device, s->account);
	ret = stream_init(&s->stream, opts->fd, device, s->account);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (!ret)
		ret = -pthread_create(&thread, &attr, session_main, s);
	pthread_attr_destroy(&attr);
	if (ret) {
		session_destroy(s);
		return pil_err_set(err, -ret, "start session");
	}
	return 0;
}

unsigned session_count(struct gg_device *device)
{
	unsigned n;

	pthread_mutex_lock(&device->lock);
	n = device->n_sessions;
	pthread_mutex_unlock(&device->lock);
	return n;
}
