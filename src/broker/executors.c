/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: an executor is started at the first session on its device.  It holds one end
 * of a SOCK_SEQPACKET pair; messages sent before it has loaded its libraries wait there.  When it
 * dies the kernel closes its streams, so programs learn of it at once, and the next session starts
 * another: at first without delay, then, when it keeps dying young, after a pause that doubles.
 *
 * Letting go of an executor is closing our end: it serves what it has and leaves.  So `control` may
 * be -1 while `pid` still lives; a new session then gets a new executor and the old pid is
 * forgotten (it is reaped as a stranger).
 *
 * An API may want an executor for each program (WIRE_DEVICE_PER_PROGRAM): a library that ends its
 * process on bad input, or that cannot be trusted with two programs.  Such an executor is started
 * for one session, is let go of when that has ended, and stays on a list for OWN_REST_MS, so that a
 * machine can have OWN_MAX at a time and start no more than so many in that time.  That one dies is
 * its program's doing: only one that never opens its device makes others wait for the next try.
 *
 * An executor whose main thread no longer answers is killed, sessions and all: programs learn of
 * it as of any other end, and the next session starts another. */
#include "broker/executors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/str.h"

enum {
	YOUNG_MS = 2000,
	DEAF_MS = 10000,  /* without an answer: it is stuck */
	OPEN_MS = 120000, /* the same until it has its device open: drivers take their time */
	OWN_MAX = 8,      /* executors of a machine's own on one device */
	OWN_REST_MS = 1000,
	OWN_IDLE_MS = 2000, /* without a session: its program has gone */
};

static const struct backoff_rule retry_rule = {.free = 2, .first_ms = 1000, .longest_ms = 30000},
				 offence_rule = {.first_ms = 10000, .longest_ms = 640000};

void executors_init(struct executors *x, struct loop *loop, const struct jail *jail,
		    const struct wire_device *devices, int n)
{
	*x = (struct executors){.jail = jail, .loop = loop, .n = n};
	list_init(&x->own);
	for (int i = 0; i < n; i++) {
		x->executor[i] = (struct executor){
			.table = x,
			.device = devices[i],
			.card = cards_get(&x->cards, devices[i].card),
			.control.fd = -1,
		};
		x->executor[i].device.index = (uint32_t)i;
	}
}

static void let_go(struct executor *e)
{
	loop_remove(&e->control);
	pil_close_p(&e->control.fd);
	e->n_sessions = 0;
	e->reported = false;
}

static void own_destroy(struct executor *e)
{
	let_go(e);
	list_remove(&e->link);
	free(e);
}

void executors_finish(struct executors *x)
{
	struct executor *e, *next;

	list_for_each_safe (e, next, &x->own, link)
		own_destroy(e);
	for (int i = 0; i < x->n; i++)
		let_go(&x->executor[i]);
	cards_finish(&x->cards);
}

static bool is_example(const struct executor *e)
{
	return e->device.flags & WIRE_DEVICE_EXAMPLE;
}

int executors_list(const struct executors *x, uint16_t api, uint64_t quota_bytes,
		   struct wire_device *out)
{
	int n = 0;

	for (int i = 0; i < x->n; i++) {
		struct wire_device *d = &out[n];

		if (api == WIRE_API_ANY ? is_example(&x->executor[i])
					: x->executor[i].device.api != api)
			continue;
		*d = x->executor[i].device;
		if (quota_bytes && quota_bytes < d->memory_total)
			d->memory_total = quota_bytes;
		if (d->memory_free > d->memory_total)
			d->memory_free = d->memory_total;
		n++;
	}
	return n;
}

enum wire_status executors_check(const struct executors *x, uint32_t index, uint16_t api,
				 uint16_t version)
{
	const struct wire_device *d;

	if (index >= (uint32_t)x->n)
		return WIRE_E_NO_DEVICE;
	d = &x->executor[index].device;
	if (d->api != api)
		return WIRE_E_NO_DEVICE;
	return d->api_version == version ? WIRE_OK : WIRE_E_API;
}

/* Of the device of @row, in whichever executors. */
static unsigned row_sessions(const struct executors *x, const struct executor *row)
{
	const struct executor *e;
	unsigned n = row->n_sessions;

	list_for_each (e, &x->own, link)
		n += e->device.index == row->device.index ? e->n_sessions : 0;
	return n;
}

int executors_ways(const struct executors *x, struct host_way *out)
{
	int n = 0;

	for (int c = 0; c < x->cards.n; c++)
		for (int i = 0; i < x->n; i++) {
			const struct executor *e = &x->executor[i];

			if (e->card != &x->cards.rows[c] || is_example(e))
				continue;
			out[n] = (struct host_way){.device = e->device,
						   .n_sessions = row_sessions(x, e),
						   .held_bytes = ledger_file_held_bytes(
							   &e->card->ledger)};
			snprintf(out[n].runtime, sizeof(out[n].runtime), "%s",
				 x->jail->lib_dir ? x->jail->lib_dir : x->jail->root);
			n++;
		}
	return n;
}

/* The row of the device it serves. */
static struct executor *row_of(struct executor *e)
{
	return &e->table->executor[e->device.index];
}

/* It died, or never came up. */
static void note_failure(struct executor *e)
{
	int64_t now = clock_now_ms();

	if (e->machine[0] && e->opened)
		return;
	if (now - e->started_ms < YOUNG_MS)
		backoff_note(&row_of(e)->again, &retry_rule, now);
	else
		backoff_reset(&row_of(e)->again);
}

/* The one whose bubblewrap is @pid; NULL: there is none. */
static struct executor *find_pid(struct executors *x, pid_t pid)
{
	struct executor *e;

	for (int i = 0; i < x->n; i++)
		if (x->executor[i].pid == pid)
			return &x->executor[i];
	list_for_each (e, &x->own, link)
		if (e->pid == pid)
			return e;
	return NULL;
}

bool executors_reaped(struct executors *x, pid_t pid, int status)
{
	bool had_number = cards_reaped(&x->cards, pid);
	struct executor *e = find_pid(x, pid);

	if (!e)
		return had_number;
	e->pid = 0;
	if (e->control.fd < 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		log_info("executor of %s left", e->device.name);
		return true;
	}
	if (log_allowed(&row_of(e)->complaints))
		log_warn("executor of %s ended (%s %d)", e->device.name,
			 WIFSIGNALED(status) ? "signal" : "status",
			 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	note_failure(e);
	let_go(e);
	return true;
}

/* It has the device to itself for minutes, or an executor to restart for everybody: not again at
 * once. */
static void note_offender(struct executor *e, const struct control_stuck *said)
{
	char machine[CONTROL_NAME_BYTES];

	snprintf(machine, sizeof(machine), "%.*s", CONTROL_NAME_BYTES - 1, said->machine);
	if (strcmp(machine, e->offender))
		backoff_reset(&e->offences);
	strcpy(e->offender, machine);
	backoff_note(&e->offences, &offence_rule, clock_now_ms());
	if (log_allowed(&e->complaints)) {
		char name[CONTROL_NAME_BYTES * 4];

		str_escape(name, sizeof(name), machine);
		log_warn("executor of %s: a graph of machine '%s' did not end", e->device.name,
			 name);
	}
}

static void forget(struct executor *e)
{
	note_failure(e);
	let_go(e);
	e->pid = 0;
}

/* Its executors have been killed. */
static void end_card(struct executors *x, const struct cards_row *card)
{
	struct executor *e;

	for (int i = 0; i < x->n; i++)
		if (x->executor[i].card == card && x->executor[i].control.fd >= 0)
			forget(&x->executor[i]);
	list_for_each (e, &x->own, link)
		if (e->card == card && e->control.fd >= 0)
			forget(e);
}

static void control_ready(struct loop_source *source, uint32_t events)
{
	struct executor *e = container_of(source, struct executor, control);
	union {
		struct control_report report;
		struct control_stuck stuck;
	} said;
	ssize_t n = recv(source->fd, &said, sizeof(said), MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n == (ssize_t)sizeof(said.stuck) && said.stuck.kind == CONTROL_STUCK) {
		note_offender(row_of(e), &said.stuck);
		let_go(e);
		return;
	}
	if (n != (ssize_t)sizeof(said.report) || said.report.kind != CONTROL_REPORT) {
		let_go(e); /* dying; the rest is said when it is reaped */
		return;
	}
	e->reported = e->opened = true;
	e->asked_ms = 0;
	e->n_sessions = said.report.n_sessions;
	row_of(e)->device.memory_total = said.report.memory_total;
	row_of(e)->device.memory_free = said.report.memory_free;
	if (said.report.n_sessions)
		e->used_ms = clock_now_ms();
	if (cards_judge(e->card, said.report.n_faults))
		end_card(e->table, e->card);
}

static int spawn(struct executor *e, int control_fd)
{
	struct pil_err err = {0};
	struct ledger_file *ledger = &e->card->ledger;
	int number = cards_join(e->card, &e->device, &err);
	const int keep_fds[] = {control_fd, ledger->fd};
	_auto_free char *fd_text = str_printf("%d", control_fd);
	_auto_free char *ledger_text = str_printf("%d:%d", ledger->fd, number);
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = -1,
				 .stderr_fd = -1,
				 .new_session = true,
				 .keep_fds = keep_fds,
				 .n_keep_fds = ARRAY_SIZE(keep_fds)};
	_auto_free char *api_text = str_printf("%u", e->device.api);
	const char *const args[] = {"--api",        api_text,       "--device",
				    e->device.name, "--control-fd", fd_text,
				    "--ledger",     ledger_text,    NULL};
	pid_t pid = number < 0 ? number : jail_spawn(e->table->jail, args, &opts, &err);

	if (pid < 0) {
		if (log_allowed(&row_of(e)->complaints))
			log_err("%s", err.msg);
		return (int)pid;
	}
	ledger_file_take(ledger, number, pid);
	e->pid = pid;
	return 0;
}

static int start(struct executor *e)
{
	_auto_fd int ours = -1;
	_auto_fd int theirs = -1;
	int pair[2], ret;

	if (!backoff_due(&row_of(e)->again, clock_now_ms()))
		return -EAGAIN;
	e->started_ms = e->used_ms = clock_now_ms();
	e->asked_ms = 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	ours = pair[0];
	theirs = pair[1];
	ret = spawn(e, theirs);
	if (ret) {
		note_failure(e);
		return ret;
	}
	e->control = (struct loop_source){.fd = ours, .ready = control_ready};
	ret = loop_add(e->table->loop, &e->control, EPOLLIN);
	if (ret) {
		e->control.fd = -1;
		return ret;
	}
	pil_take_fd(&ours);
	return 0;
}

static enum wire_status open_on(struct executor *e, struct control_open *open, const int *fds,
				int n_fds)
{
	int ret;

	open->kind = CONTROL_OPEN;
	for (int try = 0; try < 2; try++) {
		if (e->control.fd < 0 && start(e))
			return WIRE_E_EXECUTOR;
		pil_set_nonblock(e->control.fd, true);
		ret = pil_send_fds(e->control.fd, open, sizeof(*open), fds, n_fds);
		if (ret == -EAGAIN || ret == -ETOOMANYREFS)
			return WIRE_E_BUSY; /* it does not take them up: starting, or stuck */
		if (ret == 0) {
			e->used_ms = clock_now_ms();
			return WIRE_OK;
		}
		forget(e); /* it died, and has not been reaped: the next round starts another */
	}
	return WIRE_E_EXECUTOR;
}

/* Is nothing left of it that counts? */
static bool own_is_over(const struct executor *e, int64_t now)
{
	return e->control.fd < 0 && !e->pid && now - e->started_ms >= OWN_REST_MS;
}

static void own_sweep(struct executors *x)
{
	struct executor *e, *next;
	int64_t now = clock_now_ms();

	list_for_each_safe (e, next, &x->own, link)
		if (own_is_over(e, now))
			own_destroy(e);
}

/* A new executor for one program of @machine; NULL: it has too many. */
static struct executor *own_create(struct executor *row, const char *machine)
{
	struct executors *x = row->table;
	struct executor *e;
	int n = 0;

	own_sweep(x);
	list_for_each (e, &x->own, link)
		n += row_of(e) == row && !strcmp(e->machine, machine);
	e = n < OWN_MAX ? calloc(1, sizeof(*e)) : NULL;
	if (!e)
		return NULL;
	*e = (struct executor){.table = x,
			       .device = row->device,
			       .card = row->card,
			       .control.fd = -1};
	snprintf(e->machine, sizeof(e->machine), "%s", machine);
	list_append(&x->own, &e->link);
	return e;
}

enum wire_status executors_open(struct executors *x, uint32_t index, struct control_open *open,
				const int *fds, int n_fds)
{
	struct executor *e;

	if (index >= (uint32_t)x->n)
		return WIRE_E_NO_DEVICE;
	e = &x->executor[index];
	if (!strcmp(open->machine, e->offender) && !backoff_due(&e->offences, clock_now_ms()))
		return WIRE_E_BUSY;
	if (e->device.flags & WIRE_DEVICE_PER_PROGRAM)
		e = own_create(e, open->machine);
	return e ? open_on(e, open, fds, n_fds) : WIRE_E_BUSY;
}

/* bubblewrap leads the jail; the executor is its child. */
static void end_stuck(struct executor *e)
{
	log_warn("executor of %s does not answer: it is ended", e->device.name);
	jail_kill(e->pid);
	forget(e);
}

/* True: it was asked long ago.  (Not: it was silent for long; we may have been stopped.) */
static bool is_stuck(const struct executor *e, int64_t now)
{
	return e->asked_ms && now - e->asked_ms >= (e->reported ? DEAF_MS : OPEN_MS);
}

static void tick(struct executor *e, int64_t now, int64_t idle_ms)
{
	const struct control_open query = {.kind = CONTROL_QUERY};

	if (e->control.fd >= 0 &&
	    e->asked_ms) /* an answer may have come that we have not read yet */
		control_ready(&e->control, EPOLLIN);
	if (e->control.fd < 0)
		return;
	if (is_stuck(e, now)) {
		end_stuck(e);
	} else if (e->reported && !e->n_sessions && now - e->used_ms >= idle_ms) {
		let_go(e);
	} else if (!e->asked_ms) {
		e->asked_ms = now;
		if (send(e->control.fd, &query, sizeof(query), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			log_dbg("executor of %s: query: %s", e->device.name, strerror(errno));
	}
}

void executors_tick(struct executors *x, int64_t idle_ms)
{
	int64_t now = clock_now_ms();
	struct executor *e;

	cards_check(&x->cards);
	for (int i = 0; i < x->n; i++)
		tick(&x->executor[i], now, idle_ms);
	list_for_each (e, &x->own, link)
		tick(e, now, OWN_IDLE_MS);
	own_sweep(x);
}

unsigned executors_sessions(const struct executors *x)
{
	unsigned n = 0;

	for (int i = 0; i < x->n; i++)
		n += row_sessions(x, &x->executor[i]);
	return n;
}
