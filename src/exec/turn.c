/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: sessions compute one at a time.  A card runs one graph fastest when it runs
 * it alone (a CPU's caches, a GPU's queues), so time is shared by turns and not by overlap.
 *
 * Fairness is start-time fair queueing over machines: each has a clock of the card time it used,
 * divided by its weight; the waiting turn with the lowest clock goes next.  A machine that was idle
 * does not save up: on arrival its clock is set forward to that of the last turn given.
 *
 * The clocks and the queue are in the card's ledger, so it does not matter which executor a turn is
 * of: a machine that uses two APIs has one share.
 *
 * A program that generates text sends its next graph only after the answer to the last one, so it
 * never waits at the moment when a turn ends.  If the card then went to whoever does wait, a
 * machine with long graphs would have one for each short one of the other.  So the card is left
 * idle for a moment (TURN_RETURN_US) when the only ones waiting are ahead of a machine that was
 * here just now.  The idle time is charged to the machine it was left idle for: one that keeps the
 * card from others without using it pays for that as if it had used it.
 *
 * A long graph is run in slices, with turn_yield() between them, so a turn is not as long as a
 * program likes.  Where a back end takes too long all the same, who waits looks at the clock: after
 * turn_max_us the turn is overdue, which a back end that can be stopped obeys; turn_grace_us later
 * the card is lost to everybody.  Then stuck() ends the process: who waits calls it where the turn
 * is of its own process, and turn_look() does where only others wait.  When that does not help for
 * as long again, who waits takes the turn away.
 *
 * Work outside of turns (checking graphs, moving data) may overlap with others' turns; it is booked
 * on the same clock, and a machine that is ahead by more than TURN_CREDIT_US waits for a turn
 * before it goes on.
 *
 * The clock of a machine outlives its sessions while it is ahead of the card's (account_put()): who
 * leaves and comes back finds the bill.
 *
 * What the ledger says may be wrong (ledger.c).  A turn knows by itself whether it waits or runs,
 * and since when; it does not take a sleeper's word for being woken, and sleeps a bounded time.  A
 * hostile executor can run when it is not its turn, or make others do so, and can keep the turn for
 * turn_max_us and two times the grace, again and again. */
#include "exec/turn.h"

#include <errno.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/log.h"
#include "exec/account.h"

/* ---- its entry in the ledger ---- */

static struct ledger *map_of(const struct turn *turn)
{
	return turn->card->ledger.map;
}

static struct ledger_turn *entry_of(const struct turn *turn)
{
	return &map_of(turn)->turns[turn->slot];
}

static struct ledger_machine *row_of(const struct turn *turn)
{
	return account_row_locked(turn->account);
}

static uint32_t n_turns(const struct card *card)
{
	uint32_t n = LEDGER_GET(card->ledger.map->n_turns);

	return n < LEDGER_TURNS ? n : LEDGER_TURNS;
}

static void write_entry(const struct turn *turn)
{
	struct ledger_turn *t = entry_of(turn);

	if (n_turns(turn->card) <= turn->slot)
		LEDGER_SET(map_of(turn)->n_turns, turn->slot + 1);
	LEDGER_SET(t->executor, turn->card->ledger.executor);
	LEDGER_SET(t->machine, turn->account->row);
	LEDGER_SET(t->state, turn->state);
}

int turn_init(struct turn *turn, struct account *account)
{
	struct card *card = account->card;
	struct ledger *map = card->ledger.map;
	uint32_t n, i = 0;

	*turn = (struct turn){.state = LEDGER_TURN_IDLE};
	card_lock(card);
	n = n_turns(card);
	while (i < n && LEDGER_GET(map->turns[i].state) != LEDGER_TURN_FREE)
		i++;
	if (i < LEDGER_TURNS) {
		turn->slot = i;
		turn->account = account;
		turn->card = card;
		LEDGER_SET(map->turns[i].overdue, 0);
		write_entry(turn);
	}
	card_unlock(card);
	return turn->card ? 0 : -EBUSY;
}

void turn_finish(struct turn *turn)
{
	struct ledger *map;
	uint32_t n;

	if (!turn->card)
		return;
	map = map_of(turn);
	card_lock(turn->card);
	LEDGER_SET(entry_of(turn)->state, LEDGER_TURN_FREE);
	for (n = n_turns(turn->card); n; n--)
		if (LEDGER_GET(map->turns[n - 1].state) != LEDGER_TURN_FREE)
			break;
	LEDGER_SET(map->n_turns, n);
	card_unlock(turn->card);
	turn->card = NULL;
}

/* ---- the rule ---- */

/* Its clock as it would be if it came now. */
static int64_t clock_of(struct card *card, const struct ledger_machine *m)
{
	int64_t its = ledger_clock(m), card_us = ledger_card_clock(&card->ledger);

	return its < card_us ? card_us : its;
}

/* The machine that is worth waiting for before one with clock @virtual_us goes; LEDGER_MACHINES:
 * none. */
static uint32_t worth_waiting_for(struct card *card, int64_t virtual_us, int64_t now)
{
	uint32_t n = ledger_n_machines(&card->ledger), best = LEDGER_MACHINES;
	int64_t best_us = 0;

	for (uint32_t i = 0; i < n; i++) {
		const struct ledger_machine *m = &card->ledger.map->machines[i];
		int64_t active_us = LEDGER_GET(m->active_us);

		if (active_us > now || active_us <= now - TURN_RETURN_US ||
		    LEDGER_GET(m->n_turns) || clock_of(card, m) + TURN_AHEAD_US >= virtual_us ||
		    !ledger_machine_used(m) || !ledger_n_sessions(m))
			continue;
		if (best == LEDGER_MACHINES || active_us > best_us) {
			best = i;
			best_us = active_us;
		}
	}
	return best;
}

/* The clock of what waits in entry @i; false: nothing does. */
static bool waiting_clock(struct card *card, uint32_t i, int64_t *virtual_us, uint64_t *order)
{
	const struct ledger_turn *t = &card->ledger.map->turns[i];
	uint32_t machine = LEDGER_GET(t->machine);

	if (LEDGER_GET(t->state) != LEDGER_TURN_WAITS || machine >= LEDGER_MACHINES)
		return false;
	*virtual_us = ledger_clock(&card->ledger.map->machines[machine]);
	*order = LEDGER_GET(t->order);
	return true;
}

uint32_t turn_pick(struct card *card, int64_t now, int64_t *again_us, uint32_t *awaited)
{
	uint32_t n = n_turns(card), next = LEDGER_TURNS;
	int64_t next_us = 0, its_us;
	uint64_t next_order = 0, its_order;

	*again_us = INT64_MAX;
	*awaited = LEDGER_MACHINES;
	for (uint32_t i = 0; i < n; i++) {
		if (!waiting_clock(card, i, &its_us, &its_order))
			continue;
		if (next == LEDGER_TURNS || its_us < next_us ||
		    (its_us == next_us && its_order < next_order)) {
			next = i;
			next_us = its_us;
			next_order = its_order;
		}
	}
	if (next == LEDGER_TURNS)
		return next;
	*awaited = worth_waiting_for(card, next_us, now);
	if (*awaited == LEDGER_MACHINES)
		return next;
	*again_us = LEDGER_GET(card->ledger.map->machines[*awaited].active_us) + TURN_RETURN_US;
	if (*again_us > now + TURN_RETURN_US)
		*again_us = now + TURN_RETURN_US;
	return LEDGER_TURNS;
}

/* ---- with the lock held ---- */

static void set_clock(struct ledger_machine *m, int64_t virtual_us)
{
	LEDGER_SET(m->virtual_us, virtual_us < LEDGER_MAX_US ? virtual_us : LEDGER_MAX_US);
}

/* By what the clock of one with @weight goes forward; never by nothing. */
static int64_t weighed(unsigned weight, int64_t used_us)
{
	return (used_us * ACCOUNT_WEIGHT + weight - 1) / weight;
}

static void count_used(struct ledger_machine *m, int64_t used_us)
{
	uint64_t sum = (uint64_t)LEDGER_GET(m->used_us) + (uint64_t)used_us;

	LEDGER_SET(m->used_us, (int64_t)(sum & INT64_MAX));
}

static void book(struct account *a, int64_t used_us)
{
	struct ledger_machine *m = account_row_locked(a);

	set_clock(m, clock_of(a->card, m) + weighed(a->weight, used_us));
	count_used(m, used_us);
}

/* A turn of any executor. */
static void grant(struct card *card, uint32_t i, int64_t now)
{
	struct ledger *map = card->ledger.map;
	struct ledger_turn *t = &map->turns[i];
	uint32_t machine = LEDGER_GET(t->machine);

	LEDGER_SET(t->started_us, now);
	LEDGER_SET(t->overdue, 0);
	LEDGER_SET(t->state, LEDGER_TURN_RUNS);
	LEDGER_SET(map->running, i + 1);
	if (machine < LEDGER_MACHINES)
		LEDGER_SET(map->virtual_us, ledger_clock(&map->machines[machine]));
}

/* It is ours now. */
static void take(struct turn *turn, int64_t now)
{
	turn->state = LEDGER_TURN_RUNS;
	turn->started_us = now;
	atomic_store_explicit(&turn->overdue, false, memory_order_relaxed);
	turn->card->running = turn;
}

/* The machine that the card was kept idle for pays. */
static void book_idle(struct card *card, int64_t now)
{
	struct ledger *map = card->ledger.map;
	uint32_t awaited = LEDGER_GET(map->awaited);
	int64_t since = LEDGER_GET(map->idle_us);

	if (awaited && awaited <= LEDGER_MACHINES && since <= now && since >= now - 1000000) {
		struct ledger_machine *m = &map->machines[awaited - 1];
		uint32_t weight = LEDGER_GET(m->weight);

		if (!weight || weight > ACCOUNT_MAX_WEIGHT)
			weight = ACCOUNT_WEIGHT;
		set_clock(m, clock_of(card, m) + weighed(weight, now - since));
	}
	LEDGER_SET(map->idle_us, now);
}

/* Wakes the session of entry @i, in whichever executor, unless it is @self, who is awake. */
static void wake(struct card *card, uint32_t i, const struct turn *self)
{
	struct ledger_turn *t = &card->ledger.map->turns[i];

	if (self && self->slot == i)
		return;
	atomic_fetch_add(&t->wake, 1);
	ledger_wake(&t->wake);
}

static void set_waiting(struct ledger *map, int by)
{
	uint32_t n = LEDGER_GET(map->n_waiting);

	LEDGER_SET(map->n_waiting, by < 0 && !n ? 0 : n + (uint32_t)by);
}

/* Gives the turn on.  Returns when to look again. */
static int64_t settle(struct card *card, const struct turn *self, int64_t now)
{
	struct ledger *map = card->ledger.map;
	uint32_t next, awaited;
	int64_t again;

	book_idle(card, now);
	next = turn_pick(card, now, &again, &awaited);
	LEDGER_SET(map->awaited, awaited < LEDGER_MACHINES ? awaited + 1 : 0);
	if (next == LEDGER_TURNS && again == INT64_MAX)
		LEDGER_SET(map->n_waiting, 0);
	if (next == LEDGER_TURNS)
		return again;
	set_waiting(map, -1);
	grant(card, next, now);
	wake(card, next, self);
	return INT64_MAX;
}

/* Nobody waits in vain for the one that runs, which is not ours: it has had its time, the grace,
 * and the same again to be ended by its own executor. */
static void take_away(struct card *card, uint32_t i)
{
	struct ledger *map = card->ledger.map;

	if (log_allowed(&card->complaints))
		log_warn("a turn of another executor does not end: it is taken away");
	ledger_note_fault(&card->ledger);
	LEDGER_SET(map->turns[i].state, LEDGER_TURN_IDLE);
	LEDGER_SET(map->running, 0);
}

/* Since when the turn in entry @i runs, as far as @turn, who waits, can tell. */
static int64_t running_since(struct turn *turn, uint32_t i, int64_t now)
{
	int64_t started = LEDGER_GET(map_of(turn)->turns[i].started_us);

	if (turn->seen != i || turn->seen_started_us != started) {
		turn->seen = i;
		turn->seen_started_us = started;
		turn->seen_us = now;
	}
	return started >= 0 && started <= turn->seen_us ? started : turn->seen_us;
}

/* @turn waits for the one that runs, in entry @i.  Returns when to look again. */
static int64_t watch(struct turn *turn, uint32_t i, int64_t now)
{
	struct card *card = turn->card;
	struct turn *ours = card->running && card->running->slot == i ? card->running : NULL;
	int64_t due = (ours ? ours->started_us : running_since(turn, i, now)) + card->turn_max_us;

	if (now < due)
		return due;
	LEDGER_SET(map_of(turn)->turns[i].overdue, 1);
	if (ours)
		atomic_store_explicit(&ours->overdue, true, memory_order_relaxed);
	due += card->turn_grace_us;
	if (now < due)
		return due;
	if (ours && card->stuck)
		card->stuck(card->stuck_ctx, ours->account->machine);
	if (ours)
		return now + card->turn_grace_us;
	due += card->turn_grace_us;
	if (now >= due)
		take_away(card, i);
	return now < due ? due : now;
}

/* Which entry runs; LEDGER_TURNS: none. */
static uint32_t running_of(struct card *card)
{
	uint32_t running = LEDGER_GET(card->ledger.map->running);

	if (!running || running > LEDGER_TURNS ||
	    LEDGER_GET(card->ledger.map->turns[running - 1].state) != LEDGER_TURN_RUNS)
		return LEDGER_TURNS;
	return running - 1;
}

/* Is it ours?  If not, the entry says that we wait. */
static bool granted(struct turn *turn, int64_t now)
{
	const struct ledger_turn *t = entry_of(turn);
	int64_t started;

	if (running_of(turn->card) != turn->slot ||
	    LEDGER_GET(t->executor) != turn->card->ledger.executor) {
		if (LEDGER_GET(t->state) != LEDGER_TURN_WAITS ||
		    LEDGER_GET(t->executor) != turn->card->ledger.executor ||
		    LEDGER_GET(t->machine) != turn->account->row ||
		    n_turns(turn->card) <= turn->slot) {
			ledger_note_fault(&turn->card->ledger);
			write_entry(turn);
		}
		return false;
	}
	started = LEDGER_GET(t->started_us);
	take(turn, started <= now && started >= now - turn->card->turn_grace_us ? started : now);
	return true;
}

static void await_turn(struct turn *turn)
{
	struct card *card = turn->card;
	struct ledger *map = map_of(turn);

	turn->state = LEDGER_TURN_WAITS;
	turn->seen = LEDGER_TURNS;
	LEDGER_SET(entry_of(turn)->order, LEDGER_GET(map->order));
	LEDGER_SET(map->order, LEDGER_GET(map->order) + 1);
	set_waiting(map, 1);
	write_entry(turn);
	for (;;) {
		int64_t now = clock_now_us();
		uint32_t running = running_of(card), asleep;
		int64_t due = running < LEDGER_TURNS && running != turn->slot
				      ? watch(turn, running, now)
				      : settle(card, turn, now);

		if (granted(turn, now))
			return;
		if (due == INT64_MAX || due > now + card->turn_max_us)
			due = now + card->turn_max_us; /* another one has been granted it */
		asleep = atomic_load(&entry_of(turn)->wake);
		card_unlock(card);
		ledger_sleep(&entry_of(turn)->wake, asleep, due - now);
		card_lock(card);
		if (granted(turn, clock_now_us()))
			return;
	}
}

static void count_turn(struct ledger_machine *m, int by)
{
	uint32_t n = LEDGER_GET(m->n_turns);

	LEDGER_SET(m->n_turns, by < 0 && !n ? 0 : n + (uint32_t)by);
}

static void begin(struct turn *turn)
{
	struct card *card = turn->card;
	struct ledger *map = map_of(turn);
	struct ledger_machine *m = row_of(turn);
	int64_t now = clock_now_us();

	count_turn(m, 1);
	set_clock(m, clock_of(card, m));
	if (running_of(card) == LEDGER_TURNS && !LEDGER_GET(map->n_waiting) &&
	    worth_waiting_for(card, ledger_clock(m), now) == LEDGER_MACHINES) {
		write_entry(turn);
		grant(card, turn->slot, now);
		take(turn, now);
	} else {
		await_turn(turn);
	}
}

/* The first of those who wait; LEDGER_TURNS: none. */
static uint32_t first_waiting(struct card *card)
{
	uint32_t n = n_turns(card), first = LEDGER_TURNS;
	uint64_t first_order = 0, order;
	int64_t virtual_us;

	for (uint32_t i = 0; i < n; i++)
		if (waiting_clock(card, i, &virtual_us, &order) &&
		    (first == LEDGER_TURNS || order < first_order)) {
			first = i;
			first_order = order;
		}
	return first;
}

static int64_t end(struct turn *turn)
{
	struct card *card = turn->card;
	struct ledger *map = map_of(turn);
	struct ledger_machine *m = row_of(turn);
	int64_t now = clock_now_us(), used_us = now - turn->started_us;
	bool was_ours = running_of(card) == turn->slot;
	uint32_t first;

	book(turn->account, used_us);
	count_turn(m, -1);
	LEDGER_SET(m->active_us, now);
	turn->state = LEDGER_TURN_IDLE;
	card->running = NULL;
	write_entry(turn);
	if (was_ours)
		LEDGER_SET(map->running, 0);
	if (!LEDGER_GET(map->n_waiting) || running_of(card) != LEDGER_TURNS)
		return used_us;
	if (settle(card, NULL, now) == INT64_MAX)
		return used_us;
	first = first_waiting(card);
	if (first < LEDGER_TURNS)
		wake(card, first, NULL); /* to look again in time */
	return used_us;
}

/* ---- for sessions ---- */

void turn_begin(struct turn *turn)
{
	card_lock(turn->card);
	begin(turn);
	card_unlock(turn->card);
}

int64_t turn_end(struct turn *turn)
{
	int64_t used_us;

	card_lock(turn->card);
	used_us = end(turn);
	card_unlock(turn->card);
	return used_us;
}

bool turn_is_overdue(const struct turn *turn)
{
	if (atomic_load_explicit(&turn->overdue, memory_order_relaxed))
		return true;
	return LEDGER_GET(entry_of(turn)->overdue) &&
	       clock_now_us() - turn->started_us >= turn->card->turn_max_us;
}

/* Is one of those who wait to go before @virtual_us does?  Programs of one machine alternate. */
static bool is_to_yield(struct card *card, int64_t virtual_us)
{
	uint32_t n = LEDGER_GET(card->ledger.map->n_waiting) ? n_turns(card) : 0;
	int64_t its_us;
	uint64_t order;

	for (uint32_t i = 0; i < n; i++)
		if (waiting_clock(card, i, &its_us, &order) && its_us <= virtual_us)
			return true;
	return false;
}

int64_t turn_yield(struct turn *turn)
{
	struct card *card = turn->card;
	int64_t now = clock_now_us(), used_us = now - turn->started_us;
	struct ledger_machine *m;
	int64_t after_us;

	card_lock(card);
	m = row_of(turn);
	after_us = ledger_clock(m) + weighed(turn->account->weight, used_us);
	if (is_to_yield(card, after_us)) {
		used_us = end(turn);
		begin(turn);
	} else {
		set_clock(m, after_us);
		count_used(m, used_us);
		turn->started_us = now;
		LEDGER_SET(entry_of(turn)->started_us, now);
	}
	card_unlock(card);
	return used_us;
}

static bool others_want(const struct turn *turn)
{
	struct card *card = turn->card;
	struct ledger *map = map_of(turn);
	uint32_t n = n_turns(card), running = running_of(card);

	if (running < LEDGER_TURNS && LEDGER_GET(map->turns[running].machine) != turn->account->row)
		return true;
	if (!LEDGER_GET(map->n_waiting))
		return false;
	for (uint32_t i = 0; i < n; i++)
		if (LEDGER_GET(map->turns[i].state) == LEDGER_TURN_WAITS &&
		    LEDGER_GET(map->turns[i].machine) != turn->account->row)
			return true;
	return false;
}

void turn_bill(struct turn *turn, int64_t used_us)
{
	struct card *card = turn->card;

	card_lock(card);
	book(turn->account, used_us);
	if (ledger_clock(row_of(turn)) > ledger_card_clock(&card->ledger) + TURN_CREDIT_US &&
	    others_want(turn)) {
		begin(turn);
		end(turn);
	}
	card_unlock(card);
}

void turn_book(struct account *account, int64_t used_us)
{
	card_lock(account->card);
	book(account, used_us);
	card_unlock(account->card);
}

void turn_look(struct card *card)
{
	struct turn *running;
	int64_t lasted_us = 0;

	card_lock(card);
	running = card->running;
	if (running && LEDGER_GET(card->ledger.map->n_waiting))
		lasted_us = clock_now_us() - running->started_us;
	if (running && lasted_us >= card->turn_max_us)
		atomic_store_explicit(&running->overdue, true, memory_order_relaxed);
	if (running && lasted_us >= card->turn_max_us + card->turn_grace_us && card->stuck)
		card->stuck(card->stuck_ctx, running->account->machine);
	card_unlock(card);
}
