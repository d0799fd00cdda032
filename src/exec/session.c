/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a session is a thread that reads commands in order and has them carried out;
 * it blocks on its own peer only.  The fixed part of a command is copied once.  A handler returns
 * what came of it, and the operation's entry says whether that is the answer or, on failure, noted
 * for the next answer.  -EPROTO is for a peer that breaks the rules: it ends the session, is
 * counted and logged at most once a second.
 *
 * The only thing sessions share is the card: its memory accounts and the turn to compute, neither
 * of which is held while reading from or writing to a peer.  So a stopped peer stops nobody else.
 * What computes in a turn is given up when its program has gone, or others have waited for too
 * long, where the API's library can be told so.
 *
 * Commands about memory are in mem.c; work that goes on after its command is in work.c; the rest is
 * the API's (api.h). */
#include "exec/session.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/queued.h"
#include "base/str.h"

enum {
	ASKED_PER_LOOK = 32, /* calls of session_must_stop(), per look at the clock */
	BILL_US = 2000,      /* of a processor, outside of turns: is booked */
	BILL_COMMANDS = 16,  /* after as many short commands we look how much it is */
	SHORT_BYTES = 4096,  /* of a command */
};

struct log_limit session_errors;

/* ---- answers ---- */

static void note(struct session *s, enum wire_status status)
{
	if (status != WIRE_OK && s->failed == WIRE_OK)
		s->failed = (uint16_t)status;
}

static int answer(struct session *s, uint16_t op, enum wire_status status,
		  const struct reply *reply)
{
	struct wire_answer a = {
		.op = op,
		.status = (uint16_t)status,
		.value = reply->value,
		.body_bytes = reply->bytes,
		.device_us = s->device_us,
	};

	if (s->work) {
		note(s, work_failed(s));
		a.device_us += work_used_us(s);
	}
	a.failed = s->failed;
	s->failed = WIRE_OK;
	s->device_us = 0;
	return stream_answer(&s->stream, &a, reply->data, reply->bytes);
}

int session_refuse_tail(struct session *s, const struct wire_frame *f)
{
	int err = stream_tail_skip(&s->stream, f);

	return err ? err : WIRE_E_NO_MEMORY;
}

char *session_scratch(struct session *s)
{
	if (s->scratch || !account_hold(s->account, WIRE_MAX_DATA))
		return s->scratch;
	s->scratch = malloc(WIRE_MAX_DATA);
	if (!s->scratch)
		account_unhold(s->account, WIRE_MAX_DATA);
	return s->scratch;
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

bool session_must_stop(void *session)
{
	struct session *s = session;
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

/* ---- the core's own commands ---- */

static int answer_memory(struct session *s, struct reply *reply)
{
	account_memory(s->account, &s->memory.free, &s->memory.total);
	reply->data = &s->memory;
	reply->bytes = sizeof(s->memory);
	return WIRE_OK;
}

static int add_shm(struct session *s, const struct wire_shm_add *c)
{
	_auto_fd int fd = stream_claim_fd(&s->stream);
	enum wire_status status;

	if (!s->shm_ok)
		return WIRE_E_UNSUPPORTED;
	return shms_add(&s->shms, c, fd, &status) ? (int)status : -EPROTO;
}

static int core_command(struct session *s, const struct wire_frame *f, const void *fixed,
			struct reply *reply)
{
	switch (f->op) {
	case WIRE_OP_MEMORY:
		return answer_memory(s, reply);
	case WIRE_OP_FENCE:
		return WIRE_OK;
	case WIRE_OP_SHM_ADD:
		return add_shm(s, fixed);
	case WIRE_OP_SHM_DROP:
		return shms_drop(&s->shms, ((const struct wire_shm_drop *)fixed)->shm) ? WIRE_OK
										       : -EPROTO;
	case WIRE_OP_EVENT_WANT:
		return work_want(s, ((const struct wire_event *)fixed)->event);
	case WIRE_OP_EVENT_DROP:
		return work_drop(s, ((const struct wire_event *)fixed)->event);
	default:
		return -EPROTO;
	}
}

/* Memory is as the commands before left it, also those that posted work. */
static int command(struct session *s, const struct wire_frame *f, const void *fixed,
		   struct reply *reply)
{
	int err;

	if (f->op >= WIRE_API_OPS)
		return s->api->command(s->state, f, fixed, reply);
	if (f->op < WIRE_MEM_OPS)
		return core_command(s, f, fixed, reply);
	err = s->work ? work_drain(s) : 0;
	return err ? err : mem_command(s, f, fixed, reply);
}

static int dispatch(struct session *s, const struct wire_frame *f, const void *received)
{
	const struct wire_op *op = s->stream.op;
	uint64_t fixed[WIRE_MAX_FIXED / sizeof(uint64_t)];
	struct reply reply = {0};
	int status;

	memcpy(fixed, received, op->fixed_bytes);
	status = command(s, f, fixed, &reply);
	if (status < 0)
		return status;
	if (op->answers)
		return answer(s, f->op, (enum wire_status)status, &reply);
	note(s, (enum wire_status)status);
	return 0;
}

/* ---- the thread ---- */

static int send_welcome(struct session *s, enum wire_status status)
{
	struct wire_welcome w = {.magic = WIRE_MAGIC,
				 .version = WIRE_VERSION,
				 .status = (uint16_t)status};
	uint64_t body[WIRE_MAX_WELCOME / sizeof(uint64_t)] = {0};
	struct iovec iov[] = {{&w, sizeof(w)}, {body, s->api->wire->welcome_bytes}};

	if (status != WIRE_OK)
		return pil_sendv_all(s->stream.fd, iov, 1);
	w.body_bytes = s->api->wire->welcome_bytes;
	if (s->account->card->reference)
		w.flags |= WIRE_WELCOME_REFERENCE;
	if (s->shm_ok)
		w.flags |= WIRE_WELCOME_SHM;
	account_memory(s->account, &w.memory_free, &w.memory_total);
	s->api->welcome(s->state, &w, body);
	return pil_sendv_all(s->stream.fd, iov, w.body_bytes ? 2 : 1);
}

/* What makes all that is computed from here on wrong; NULL: nothing. */
static const char *fault(struct session *s)
{
	unsigned n_lost = file_map_n_lost();

	if (n_lost != s->n_lost && shms_lost(&s->shms))
		return "no memory for what it shares with us";
	s->n_lost = n_lost;
	return s->api->fault ? s->api->fault(s->state) : NULL;
}

/* May take long by itself; turns have been booked. */
static bool is_long(const struct session *s, const struct wire_frame *f)
{
	if (f->body_bytes > SHORT_BYTES)
		return true;
	if (f->op >= WIRE_API_OPS)
		return s->api->is_long && s->api->is_long(f);
	return mem_is_long(f);
}

static int serve(struct session *s)
{
	struct wire_frame frame;
	const void *fixed;
	const char *why;
	enum wire_status status = s->api->begin(&s->state, s, s->dev);
	int n = send_welcome(s, status);

	while (status == WIRE_OK && n == 0) {
		n = stream_next(&s->stream, &frame, &fixed);
		if (n <= 0)
			break;
		n = dispatch(s, &frame, fixed);
		if (is_long(s, &frame) || ++s->n_commands == BILL_COMMANDS) {
			s->n_commands = 0;
			bill(s);
		}
		if (n == -EPROTO && log_allowed(&session_errors))
			log_warn("session of %s: bad %s command: ended", s->program,
				 s->stream.op->name);
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
	work_stop(s);
	if (s->state)
		s->api->end(s->state);
	work_destroy(s);
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

int session_start(const struct exec_api *api, void *dev, struct card *card,
		  const struct session_opts *opts, struct pil_err *err)
{
	struct session *s = calloc(1, sizeof(*s));
	char program[WIRE_MAX_NAME + 1] = "";
	pthread_attr_t attr;
	pthread_t thread;
	int ret;

	if (!s || !(s->account = account_get(card, opts->machine, opts->quota_bytes))) {
		free(s);
		close(opts->fd);
		return pil_err_set(err, ENOMEM, "start session");
	}
	account_weigh(s->account, opts->weight);
	s->api = api;
	s->dev = dev;
	s->shm_ok = opts->shm_ok;
	memcpy(program, opts->hello->program, WIRE_MAX_NAME);
	str_escape(s->program, sizeof(s->program), program);
	shms_init(&s->shms, s->account);
	ret = stream_init(&s->stream, opts->fd, api->wire, s->account);
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
