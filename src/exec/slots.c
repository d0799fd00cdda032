/* SPDX-License-Identifier: Apache-2.0
 *
 * slots.c -- see slots.h. */
#include "exec/slots.h"

#include <stdlib.h>
#include <string.h>

#include "exec/account.h"

enum { SLOTS_FIRST = 64 };

void slots_init(struct slots *slots, struct account *account, uint32_t limit)
{
	*slots = (struct slots){.account = account, .limit = limit};
}

void slots_finish(struct slots *slots)
{
	if (slots->n)
		account_unhold(slots->account, slots->n * sizeof(*slots->slot));
	free(slots->slot);
	slots->slot = NULL;
	slots->n = 0;
}

static bool grow(struct slots *slots, uint32_t slot)
{
	uint32_t n = slots->n ? slots->n : SLOTS_FIRST;
	struct slot *bigger;
	uint64_t more;

	while (n <= slot)
		n *= 2;
	if (n > slots->limit)
		n = slots->limit;
	more = (uint64_t)(n - slots->n) * sizeof(*bigger);
	if (!account_hold(slots->account, more))
		return false;
	bigger = realloc(slots->slot, n * sizeof(*bigger));
	if (!bigger) {
		account_unhold(slots->account, more);
		return false;
	}
	memset(bigger + slots->n, 0, (n - slots->n) * sizeof(*bigger));
	slots->slot = bigger;
	slots->n = n;
	return true;
}

enum wire_status slots_put(struct slots *slots, uint32_t handle, void *object)
{
	uint32_t slot = wire_slot(handle);

	if (!handle || slot >= slots->limit || (slot < slots->n && slots->slot[slot].handle))
		return WIRE_E_INVALID;
	if (slot >= slots->n && !grow(slots, slot))
		return WIRE_E_NO_MEMORY;
	slots->slot[slot] = (struct slot){handle, object};
	if (slots->top <= slot)
		slots->top = slot + 1;
	return WIRE_OK;
}

static struct slot *find(const struct slots *slots, uint32_t handle)
{
	uint32_t slot = wire_slot(handle);

	return handle && slot < slots->n && slots->slot[slot].handle == handle ? &slots->slot[slot]
									       : NULL;
}

void *slots_find(const struct slots *slots, uint32_t handle)
{
	struct slot *s = find(slots, handle);

	return s ? s->object : NULL;
}

void *slots_take(struct slots *slots, uint32_t handle)
{
	struct slot *s = find(slots, handle);
	void *object = s ? s->object : NULL;

	if (s)
		*s = (struct slot){0};
	return object;
}

void *slots_take_any(struct slots *slots)
{
	while (slots->top > 0)
		if (slots->slot[--slots->top].handle)
			return slots_take(slots, slots->slot[slots->top].handle);
	return NULL;
}
