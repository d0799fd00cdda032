/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the executors of one card share a piece of memory (wire/ledger.h).  It says
 * what each of them holds for each machine, what each machine owes, and whose turn it is.  One lock
 * guards it all.  It is held for microseconds, and never across a system call but the one that
 * wakes a waiter.
 *
 * Not a robust pthread mutex: that one keeps pointers in the memory it guards, which glibc follows
 * and writes through.  Our lock is one word, the number of the executor that has it.
 *
 * An executor may be killed at any point.  The broker sees it end, frees the lock and sets the bit
 * of its number in `dead`; who locks next clears what that executor held.  Where there is no broker
 * any more, who waits for the lock takes it after LEDGER_PATIENCE_US.  Either way all that can be
 * computed from the rest is computed anew (recount()), so nothing has to be written in one piece.
 *
 * An executor may also turn hostile: it runs a vendor's code on a guest's data.  It can write any
 * value here at any time, which comes to this:
 *  - No memory of others is at stake: nothing here is a pointer, each number is read once and
 *    compared with its bound, and the seals of the memfd keep it from shrinking under us.
 *  - No wait is without an end but the one for a turn, see turn.c.
 *  - Quota: each executor keeps its own accounts in its own memory.  It believes itself, refuses
 *    what would go beyond a machine's quota by those alone, and writes its part here anew wherever
 *    it finds it changed.  So a lie about others lasts until they use their accounts next, and a
 *    hostile executor can lie about itself alone.  At worst a machine gets its quota once per
 *    executor, or nobody gets memory.
 *  - Time: it can make others wait, and machines pay for what they did not have.  It has the card's
 *    device node, so it could do as much without a ledger.
 *  - What is found changed is counted in `n_faults`.  The broker asks for that number, and ends all
 *    executors of a card whose ledger goes wrong time and again; the next ones get a new one. */
#include "exec/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

/* ---- sleeping ---- */

void ledger_sleep(_Atomic(uint32_t) *word, uint32_t value, int64_t timeout_us)
{
	struct timespec ts = {timeout_us / 1000000, timeout_us % 1000000 * 1000};

	if (timeout_us > 0)
		syscall(SYS_futex, word, FUTEX_WAIT, value, &ts, NULL, 0);
}

void ledger_wake(_Atomic(uint32_t) *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* ---- the mapping ---- */

static int check(int fd, struct pil_err *err)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0 || fstat(fd, &st))
		return pil_err_set(err, errno, "open the card's ledger");
	if (!(seals & F_SEAL_SHRINK) || st.st_size < (off_t)sizeof(struct ledger))
		return pil_err_say(err, EINVAL, "open the card's ledger: %lld bytes, seals %x",
				   (long long)st.st_size, seals);
	return 0;
}

int ledger_open(struct ledger_end *l, int fd, uint32_t executor, struct pil_err *err)
{
	int flags = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED, ret;
	void *map;

	*l = (struct ledger_end){.executor = executor, .patience_us = LEDGER_PATIENCE_US};
	if (executor >= LEDGER_EXECUTORS)
		return pil_err_say(err, EINVAL, "open the card's ledger: it has no number %u",
				   executor);
	ret = fd < 0 ? 0 : check(fd, err);
	if (ret)
		return ret;
	map = mmap(NULL, sizeof(struct ledger), PROT_READ | PROT_WRITE, flags, fd, 0);
	if (map == MAP_FAILED)
		return pil_err_set(err, errno, "map the card's ledger");
	l->map = map;
	return 0;
}

void ledger_close(struct ledger_end *l)
{
	if (l->map)
		munmap(l->map, sizeof(*l->map));
	l->map = NULL;
}

/* ---- what is within bounds ---- */

static int64_t bound_us(int64_t us)
{
	return us < 0 ? 0 : us > LEDGER_MAX_US ? LEDGER_MAX_US : us;
}

static uint64_t add(uint64_t a, uint64_t b)
{
	return a <= UINT64_MAX - b ? a + b : UINT64_MAX;
}

uint32_t ledger_n_machines(const struct ledger_end *l)
{
	uint32_t n = LEDGER_GET(l->map->n_machines);

	return n < LEDGER_MACHINES ? n : LEDGER_MACHINES;
}

static uint32_t n_turns(const struct ledger_end *l)
{
	uint32_t n = LEDGER_GET(l->map->n_turns);

	return n < LEDGER_TURNS ? n : LEDGER_TURNS;
}

int64_t ledger_clock(const struct ledger_machine *m)
{
	return bound_us(LEDGER_GET(m->virtual_us));
}

int64_t ledger_card_clock(const struct ledger_end *l)
{
	return bound_us(LEDGER_GET(l->map->virtual_us));
}

uint32_t ledger_n_sessions(const struct ledger_machine *m)
{
	uint64_t n = 0;

	for (int e = 0; e < LEDGER_EXECUTORS; e++)
		n += LEDGER_GET(m->of[e].n_sessions);
	return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

uint64_t ledger_charged_bytes(const struct ledger_machine *m)
{
	uint64_t sum = 0;

	for (int e = 0; e < LEDGER_EXECUTORS; e++)
		sum = add(sum, LEDGER_GET(m->of[e].charged_bytes));
	return sum;
}

uint64_t ledger_committed_bytes(const struct ledger_end *l)
{
	uint64_t sum = 0;

	for (int e = 0; e < LEDGER_EXECUTORS; e++)
		sum = add(sum, LEDGER_GET(l->map->committed_bytes[e]));
	return sum;
}

/* ---- machines ---- */

static uint64_t name_word(const char *name, int at)
{
	char whole[CONTROL_NAME_BYTES] = "";
	uint64_t word;

	memcpy(whole, name, strnlen(name, sizeof(whole) - 1));
	memcpy(&word, whole + (size_t)at * sizeof(word), sizeof(word));
	return word;
}

bool ledger_machine_used(const struct ledger_machine *m)
{
	return LEDGER_GET(m->name[0]) != 0;
}

bool ledger_machine_is(const struct ledger_machine *m, const char *name)
{
	for (int i = 0; i < LEDGER_NAME_WORDS; i++)
		if (LEDGER_GET(m->name[i]) != name_word(name, i))
			return false;
	return true;
}

void ledger_machine_name(struct ledger_machine *m, const char *name)
{
	for (int i = LEDGER_NAME_WORDS; i-- > 0;) /* the word that says it is used comes last */
		LEDGER_SET(m->name[i], name_word(name, i));
}

static void clear_holding(struct ledger_holding *h)
{
	LEDGER_SET(h->charged_bytes, 0);
	LEDGER_SET(h->n_sessions, 0);
}

static uint32_t make_machine(struct ledger_end *l, const char *name)
{
	struct ledger *map = l->map;
	uint32_t n = ledger_n_machines(l), i = 0;
	struct ledger_machine *m;

	while (i < n && ledger_machine_used(&map->machines[i]))
		i++;
	if (i == LEDGER_MACHINES)
		return i;
	if (i == n)
		LEDGER_SET(map->n_machines, n + 1);
	m = &map->machines[i];
	for (int e = 0; e < LEDGER_EXECUTORS; e++)
		clear_holding(&m->of[e]);
	LEDGER_SET(m->n_turns, 0);
	LEDGER_SET(m->used_us, 0);
	LEDGER_SET(m->active_us, 0);
	LEDGER_SET(m->virtual_us, ledger_card_clock(l));
	ledger_machine_name(m, name);
	return i;
}

uint32_t ledger_machine_get(struct ledger_end *l, const char *name)
{
	uint32_t n = ledger_n_machines(l);

	for (uint32_t i = 0; i < n; i++)
		if (ledger_machine_is(&l->map->machines[i], name))
			return i;
	return make_machine(l, name);
}

static void drop_machine(struct ledger_end *l, uint32_t i)
{
	struct ledger *map = l->map;
	uint32_t n = ledger_n_machines(l);

	if (LEDGER_GET(map->awaited) == i + 1)
		LEDGER_SET(map->awaited, 0);
	LEDGER_SET(map->machines[i].name[0], 0);
	while (n && !ledger_machine_used(&map->machines[n - 1]))
		n--;
	LEDGER_SET(map->n_machines, n);
}

void ledger_sweep(struct ledger_end *l)
{
	int64_t now = ledger_card_clock(l);

	for (int round = 0; round < LEDGER_MACHINES; round++) {
		uint32_t n = ledger_n_machines(l), n_left = 0, least = n;
		int64_t least_us = 0;

		for (uint32_t i = 0; i < n; i++) {
			const struct ledger_machine *m = &l->map->machines[i];
			int64_t us = ledger_clock(m);

			if (!ledger_machine_used(m) || ledger_n_sessions(m))
				continue;
			n_left++;
			if (least == n || us < least_us) {
				least = i;
				least_us = us;
			}
		}
		if (least == n || (n_left <= LEDGER_MAX_LEFT && least_us > now))
			return;
		drop_machine(l, least);
	}
}

/* ---- what the dead left ---- */

static bool wants_card(uint32_t state)
{
	return state == LEDGER_TURN_WAITS || state == LEDGER_TURN_RUNS;
}

/* Takes one turn into the sums.  A turn that is given is the running one, or none is. */
static void recount_turn(struct ledger_end *l, uint32_t i, uint32_t *running, uint32_t *n_waiting)
{
	struct ledger_turn *t = &l->map->turns[i];
	uint32_t state = LEDGER_GET(t->state), machine = LEDGER_GET(t->machine);

	if (state == LEDGER_TURN_RUNS && *running != i + 1) {
		if (*running)
			LEDGER_SET(t->state, state = LEDGER_TURN_IDLE);
		else
			*running = i + 1;
	}
	*n_waiting += state == LEDGER_TURN_WAITS;
	if (wants_card(state) && machine < LEDGER_MACHINES) {
		struct ledger_machine *m = &l->map->machines[machine];

		LEDGER_SET(m->n_turns, LEDGER_GET(m->n_turns) + 1);
	}
}

static void recount(struct ledger_end *l)
{
	struct ledger *map = l->map;
	uint32_t running = LEDGER_GET(map->running), n_waiting = 0, n = n_turns(l);

	if (running > n || !running ||
	    LEDGER_GET(map->turns[running - 1].state) != LEDGER_TURN_RUNS)
		running = 0;
	for (uint32_t i = 0; i < LEDGER_MACHINES; i++)
		LEDGER_SET(map->machines[i].n_turns, 0);
	for (uint32_t i = 0; i < n; i++)
		recount_turn(l, i, &running, &n_waiting);
	while (n && LEDGER_GET(map->turns[n - 1].state) == LEDGER_TURN_FREE)
		n--;
	LEDGER_SET(map->n_turns, n);
	LEDGER_SET(map->running, running);
	LEDGER_SET(map->n_waiting, n_waiting);
}

static void clear_dead(struct ledger_end *l)
{
	struct ledger *map = l->map;
	uint64_t dead = LEDGER_GET(map->dead), own = UINT64_C(1) << l->executor;
	uint32_t n = n_turns(l);

	if (dead & own) { /* no: here we are */
		ledger_note_fault(l);
		atomic_fetch_and(&map->dead, ~own);
		dead &= ~own;
	}
	if (!dead)
		return;
	for (uint32_t e = 0; e < LEDGER_EXECUTORS; e++) {
		if (!(dead >> e & 1))
			continue;
		LEDGER_SET(map->committed_bytes[e], 0);
		for (uint32_t i = 0; i < LEDGER_MACHINES; i++)
			clear_holding(&map->machines[i].of[e]);
	}
	for (uint32_t i = 0; i < n; i++) {
		uint32_t e = LEDGER_GET(map->turns[i].executor);

		if (e < LEDGER_EXECUTORS && dead >> e & 1)
			LEDGER_SET(map->turns[i].state, LEDGER_TURN_FREE);
	}
	recount(l);
	atomic_fetch_and(&map->dead, ~dead); /* last: we may be killed, too */
}

/* ---- the lock ---- */

void ledger_note_fault(struct ledger_end *l)
{
	atomic_fetch_add_explicit(&l->n_faults, 1, memory_order_relaxed);
}

/* One try while others have it.  True: it is ours. */
static bool lock_contended(struct ledger_end *l, uint32_t mine, int64_t left_us)
{
	_Atomic(uint32_t) *lock = &l->map->lock;
	uint32_t v = atomic_load_explicit(lock, memory_order_relaxed);

	if (!v)
		return atomic_compare_exchange_strong(lock, &v, mine | LEDGER_LOCK_WAITED);
	if (left_us <= 0) {
		atomic_exchange(lock, mine | LEDGER_LOCK_WAITED);
		ledger_note_fault(l);
		recount(l);
		return true;
	}
	if (!(v & LEDGER_LOCK_WAITED) &&
	    !atomic_compare_exchange_strong(lock, &v, v | LEDGER_LOCK_WAITED))
		return false;
	ledger_sleep(lock, v | LEDGER_LOCK_WAITED, left_us);
	return false;
}

void ledger_lock(struct ledger_end *l)
{
	uint32_t mine = l->executor + 1, nobody = 0;

	if (!atomic_compare_exchange_strong(&l->map->lock, &nobody, mine)) {
		int64_t due = clock_now_us() + l->patience_us;

		while (!lock_contended(l, mine, due - clock_now_us()))
			;
	}
	if (LEDGER_GET(l->map->dead))
		clear_dead(l);
}

void ledger_unlock(struct ledger_end *l)
{
	uint32_t mine = l->executor + 1, v = mine;

	if (atomic_compare_exchange_strong(&l->map->lock, &v, 0))
		return;
	if (v == (mine | LEDGER_LOCK_WAITED) &&
	    atomic_compare_exchange_strong(&l->map->lock, &v, 0))
		ledger_wake(&l->map->lock);
	else /* somebody lost patience with us */
		ledger_note_fault(l);
}
