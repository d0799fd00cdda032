/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: what a card's executors share is in the ledger, which another one may
 * damage.  So what this executor's own sessions hold is kept here as well, in memory of its own:
 * account.c and turn.c believe that first, and write it into the ledger.
 *
 * There are two locks.  The mutex is for this process's memory and its threads.  The ledger's is
 * for other executors, and only who has the mutex tries to get it. */
#include "exec/card.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

/* A slice of work takes a fraction of a second of the host's processors, much longer only when
 * weights have to be read from a slow disk.  Other cards may have to compile their programs, and
 * do not say how long that takes them. */
#define TURN_MAX_US       INT64_C(10000000)
#define TURN_MAX_OTHER_US INT64_C(60000000)
#define TURN_GRACE_US     INT64_C(10000000)

int card_create(struct card **out, int ledger_fd, uint32_t executor, struct pil_err *err)
{
	struct card *card = calloc(1, sizeof(*card));
	int ret;

	if (!card)
		return pil_err_set(err, ENOMEM, "open the card");
	ret = ledger_open(&card->ledger, ledger_fd, executor, err);
	if (ret) {
		free(card);
		return ret;
	}
	card->turn_max_us = TURN_MAX_OTHER_US;
	card->turn_grace_us = TURN_GRACE_US;
	pthread_mutex_init(&card->lock, NULL);
	list_init(&card->accounts);
	*out = card;
	return 0;
}

void card_serve(struct card *card,
		void (*memory)(void *ctx, uint64_t *free_bytes, uint64_t *total_bytes), void *ctx,
		bool reference)
{
	card->memory = memory;
	card->memory_ctx = ctx;
	card->reference = reference;
	card->turn_max_us = reference ? TURN_MAX_US : TURN_MAX_OTHER_US;
}

void card_destroy(struct card *card)
{
	if (!card)
		return;
	pthread_mutex_destroy(&card->lock);
	ledger_close(&card->ledger);
	free(card);
}

void card_lock(struct card *card)
{
	pthread_mutex_lock(&card->lock);
	ledger_lock(&card->ledger);
}

void card_unlock(struct card *card)
{
	ledger_unlock(&card->ledger);
	pthread_mutex_unlock(&card->lock);
}

/* MemAvailable: what a reference device can still hold.  0 when it cannot be told. */
static uint64_t host_memory_available(void)
{
	_auto_free char *text = NULL;
	const char *line;

	if (pil_read_file("/proc/meminfo", 65536, &text) < 0 ||
	    !(line = strstr(text, "MemAvailable:")))
		return 0;
	return strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024;
}

void card_memory(struct card *card, uint64_t *free_bytes, uint64_t *total_bytes)
{
	*free_bytes = *total_bytes = 0;
	if (card->memory)
		card->memory(card->memory_ctx, free_bytes, total_bytes);
	if (card->reference) { /* an API may call all of a CPU's memory free */
		uint64_t available = host_memory_available();

		if (available && available < *free_bytes)
			*free_bytes = available;
	}
}

unsigned card_n_sessions(struct card *card)
{
	unsigned n;

	pthread_mutex_lock(&card->lock);
	n = card->n_sessions;
	pthread_mutex_unlock(&card->lock);
	return n;
}

unsigned card_n_faults(const struct card *card)
{
	return atomic_load_explicit(&card->ledger.n_faults, memory_order_relaxed);
}
