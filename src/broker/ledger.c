/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: all that reads and writes the ledger takes part in its lock, except the
 * broker, which must not wait for an executor.  It only does what is right at any moment: it sets
 * the bit of an executor that has ended, frees the lock if that one had it, and wakes all who wait,
 * in this order.  Who has the lock next finds the bit and clears the entries (exec/ledger.c).
 *
 * A number is given again only when its bit is clear: then so are its entries.  Which numbers are
 * in use the broker knows from its own list, not from the ledger.  When the last one has ended,
 * nobody is there to clear entries, and nobody to be disturbed: then the broker does it. */
#include "broker/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

int ledger_file_create(struct ledger_file *l, struct pil_err *err)
{
	_auto_fd int fd = memfd_create("pillion-ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *map;
	int ret;

	*l = (struct ledger_file){.fd = -1};
	if (fd < 0)
		return pil_err_set(err, errno, "make a card's ledger");
	/* its pages are there from now on: touching one never fails */
	ret = posix_fallocate(fd, 0, sizeof(struct ledger));
	if (ret)
		return pil_err_set(err, ret, "make a card's ledger of %zu bytes",
				   sizeof(struct ledger));
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return pil_err_set(err, errno, "seal a card's ledger");
	map = mmap(NULL, sizeof(struct ledger), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return pil_err_set(err, errno, "map a card's ledger");
	l->map = map;
	l->fd = pil_take_fd(&fd);
	return 0;
}

void ledger_file_finish(struct ledger_file *l)
{
	if (l->map)
		munmap(l->map, sizeof(*l->map));
	pil_close_p(&l->fd);
	*l = (struct ledger_file){.fd = -1};
}

int ledger_file_free_number(const struct ledger_file *l, int n_spare)
{
	uint64_t dead = atomic_load(&l->map->dead);
	int first = -EBUSY, n = 0;

	for (int i = 0; i < LEDGER_EXECUTORS; i++)
		if (!l->pids[i] && !(dead >> i & 1) && n++ == 0)
			first = i;
	return n > n_spare ? first : -EBUSY;
}

void ledger_file_take(struct ledger_file *l, int number, pid_t pid)
{
	l->pids[number] = pid;
}

static void wake(_Atomic(uint32_t) *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void wake_all(struct ledger *map)
{
	for (int i = 0; i < LEDGER_TURNS; i++) {
		struct ledger_turn *t = &map->turns[i];

		if (LEDGER_GET(t->state) != LEDGER_TURN_WAITS)
			continue;
		atomic_fetch_add(&t->wake, 1);
		wake(&t->wake);
	}
}

/* Nobody else has the ledger: what machines owe stays. */
static void clear_all(struct ledger *map)
{
	for (int i = 0; i < LEDGER_MACHINES; i++) {
		LEDGER_SET(map->machines[i].n_turns, 0);
		for (int e = 0; e < LEDGER_EXECUTORS; e++) {
			LEDGER_SET(map->machines[i].of[e].charged_bytes, 0);
			LEDGER_SET(map->machines[i].of[e].n_sessions, 0);
		}
	}
	for (int i = 0; i < LEDGER_TURNS; i++)
		LEDGER_SET(map->turns[i].state, LEDGER_TURN_FREE);
	for (int e = 0; e < LEDGER_EXECUTORS; e++)
		LEDGER_SET(map->committed_bytes[e], 0);
	LEDGER_SET(map->n_turns, 0);
	LEDGER_SET(map->n_waiting, 0);
	LEDGER_SET(map->running, 0);
	LEDGER_SET(map->awaited, 0);
	atomic_store(&map->dead, 0);
	atomic_store(&map->lock, 0);
}

static bool anybody_lives(const struct ledger_file *l)
{
	for (int i = 0; i < LEDGER_EXECUTORS; i++)
		if (l->pids[i])
			return true;
	return false;
}

bool ledger_file_bury(struct ledger_file *l, pid_t pid)
{
	uint32_t i = 0, lock;

	while (i < LEDGER_EXECUTORS && l->pids[i] != pid)
		i++;
	if (i == LEDGER_EXECUTORS || !l->map)
		return false;
	l->pids[i] = 0;
	if (!anybody_lives(l)) {
		clear_all(l->map);
		return true;
	}
	atomic_fetch_or(&l->map->dead, UINT64_C(1) << i);
	lock = atomic_load(&l->map->lock);
	/* once more where somebody has just said that he waits; then it is not the dead one's */
	for (int try = 0; try < 3 && (lock & ~LEDGER_LOCK_WAITED) == i + 1; try++)
		if (atomic_compare_exchange_strong(&l->map->lock, &lock, 0))
			wake(&l->map->lock);
	wake_all(l->map);
	return true;
}

static bool has_entries(const struct ledger *map, int number)
{
	if (LEDGER_GET(map->committed_bytes[number]))
		return true;
	for (int i = 0; i < LEDGER_MACHINES; i++)
		if (LEDGER_GET(map->machines[i].of[number].charged_bytes) ||
		    LEDGER_GET(map->machines[i].of[number].n_sessions))
			return true;
	return false;
}

void ledger_file_check(struct ledger_file *l)
{
	for (int i = 0; l->map && i < LEDGER_EXECUTORS; i++)
		if (!l->pids[i] && has_entries(l->map, i))
			atomic_fetch_or(&l->map->dead, UINT64_C(1) << i);
}

uint64_t ledger_file_held_bytes(const struct ledger_file *l)
{
	uint64_t sum = 0;

	for (int i = 0; l->map && i < LEDGER_EXECUTORS; i++) {
		uint64_t bytes = LEDGER_GET(l->map->committed_bytes[i]);

		if (l->pids[i] && __builtin_add_overflow(sum, bytes, &sum))
			return UINT64_MAX;
	}
	return sum;
}
