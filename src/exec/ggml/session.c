/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a session is a thread that reads commands in order and carries them out; it
 * blocks on its own peer only.  Commands without an answer leave their first failure in `failed`,
 * which the next answer carries.  A handler returns 0, or -errno to end the session: -EPROTO is for
 * a peer that breaks the rules of wire.h, which is counted and logged at most once a second.
 *
 * The only thing sessions share is the card: its memory accounts and the turn to compute, neither
 * of which is held while reading from or writing to a peer.  So a stopped peer stops nobody else.
 * A graph that runs is given up when its program has gone, or others have waited for too long,
 * where the back end can be told so.
 *
 * What the commands do is in session_data.c and session_graph.c. */
#include "exec/ggml/session.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/queued.h"
#include "base/str.h"
#include "exec/ggml/session_parts.h"

enum {
	ASKED_PER_LOOK = 32, /* nodes of a graph that runs, per look at the clock */
	BILL_US = 2000,      /* of a processor, outside of turns: is booked */
	BILL_COMMANDS = 16,  /* after as many short commands we look how much it is */
	SHORT_BYTES = 4096,  /* of a command */
};

struct log_limit session_errors;

/* ---- answers ---- */

int session_answer_data(struct session *s, uint16_t op, enum wire_status status, uint64_t value,
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

int session_answer(struct session *s, uint16_t op, enum wire_status status)
{
	return session_answer_data(s, op, status, 0, NULL, 0);
}

int session_note(struct session *s, enum wire_status status)
{
	if (status != WIRE_OK && s->failed == WIRE_OK)
		s->failed = (uint16_t)status;
	return 0;
}

int session_refuse_tail(struct session *s, const struct wire_frame *f)
{
	int err = stream_tail_skip(&s->stream, f);

	return err ? err : session_note(s, WIRE_E_NO_MEMORY);
}

/* ---- the device's time ---- */

static int64_t thread_cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* Books what this thread used of a processor outside of turns, when it is worth it.  May wait.
 * Returns what it had used when this began. */
static int64_t bill(struct session *s)
{
	int64_t cpu_us = thread_cpu_us(), used_us = cpu_us - s->billed_us;

	if (used_us < BILL_US)
		return cpu_us;
	s->billed_us = cpu_us;
	turn_bill(&s->turn, used_us);
	return cpu_us;
}

/* At the end: does not wait. */
static void bill_rest(struct session *s)
{
	turn_book(s->account, thread_cpu_us() - s->billed_us);
}

void session_begin_turn(struct session *s)
{
	s->turn_cpu_us = bill(s);
	turn_begin(&s->turn);
}

void session_add_used(struct session *s, int64_t used_us)
{
	s->device_us += used_us < INT32_MAX ? (uint32_t)used_us : INT32_MAX;
}

int64_t session_end_turn(struct session *s)
{
	int64_t used_us = turn_end(&s->turn);

	s->billed_us += thread_cpu_us() - s->turn_cpu_us; /* in the turn: booked as device time */
	session_add_used(s, used_us);
	return used_us;
}

void session_yield_turn(struct session *s)
{
	session_add_used(s, turn_yield(&s->turn));
}

bool session_peer_gone(struct session *s)
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

	if (turn_is_overdue(&s->turn))
		return true;
	if (++s->n_asked % ASKED_PER_LOOK)
		return s->gone;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	if (now.tv_sec == s->looked_s || now.tv_sec <= s->turn.started_us / 1000000)
		return s->gone;
	s->looked_s = now.tv_sec;
	return session_peer_gone(s);
}

/* ---- the shortest commands ---- */

int on_memory(struct session *s, const struct wire_frame *f, const struct wire_empty *c)
{
	struct wire_memory m;

	(void)c;
	account_memory(s->account, &m.free, &m.total);
	return session_answer_data(s, f->op, WIRE_OK, 0, &m, sizeof(m));
}

int on_fence(struct session *s, const struct wire_frame *f, const struct wire_empty *c)
{
	(void)c;
	return session_answer(s, f->op, WIRE_OK);
}

/* ---- the thread ---- */

static int dispatch(struct session *s, const struct wire_frame *f, const void *fixed)
{
	switch (f->op) {
#define OP(number, NAME, name, fixed_type, tail, answers)                                          \
	case number:                                                                               \
		return on_##name(s, f, (const fixed_type *)fixed);
#include "wire/ops.def"
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
	account_memory(s->account, &w->memory_free, &w->memory_total);
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

static void *pass(void *gate)
{
	pthread_mutex_lock(gate);
	pthread_mutex_unlock(gate);
	return NULL;
}

/* Can there be the threads, all at a time, that compute for this session?  What starts them, OpenMP
 * or ggml, ends the process where it cannot. */
static bool team_possible(const struct gg_device *device)
{
	int n = device->reference ? device->n_threads - 1 : 0, n_made = 0; /* one is this one */
	pthread_t *made = calloc((size_t)n + 1, sizeof(*made));
	pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

	pthread_mutex_lock(&gate);
	while (made && n_made < n && pthread_create(&made[n_made], NULL, pass, &gate) == 0)
		n_made++;
	pthread_mutex_unlock(&gate);
	for (int i = 0; i < n_made; i++)
		pthread_join(made[i], NULL);
	free(made);
	return made && n_made == n;
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

	if (!team_possible(s->device)) {
		log_warn("session of %s: no threads to compute with: refused", s->program);
		return send_welcome(s, WIRE_E_BUSY);
	}
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
		if (n == -EPROTO && log_allowed(&session_errors))
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
		account_unhold(s->account, WIRE_MAX_DATA);
	free(s->scratch);
	account_put(s->account);
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
		 (long long)(account_used_us(s->account) / 1000));
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

	if (!s || !(s->account = account_get(device->card, opts->machine, opts->quota_bytes))) {
		free(s);
		close(opts->fd);
		return pil_err_set(err, ENOMEM, "start session");
	}
	account_weigh(s->account, opts->weight);
	s->device = device;
	s->followed_cpu = -1;
	sched_getaffinity(0, sizeof(s->all_cpus), &s->all_cpus);
	s->shm_ok = opts->shm_ok;
	memcpy(program, opts->hello->program, WIRE_MAX_NAME);
	str_escape(s->program, sizeof(s->program), program);
	buffers_init(&s->buffers, device, s->account);
	graphs_init(&s->graphs, device, &s->buffers);
	shms_init(&s->shms, s->account);
	ret = stream_init(&s->stream, opts->fd, s->account);
	if (!ret)
		ret = turn_init(&s->turn, s->account);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (!ret)
		ret = -pthread_create(&thread, &attr, session_main, s);
	pthread_attr_destroy(&attr);
	if (ret) {
		send_welcome(s, WIRE_E_BUSY); /* nothing has been sent yet: there is room for it */
		session_destroy(s);
		return pil_err_set(err, -ret, "start session");
	}
	return 0;
}
