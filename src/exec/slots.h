/* SPDX-License-Identifier: Apache-2.0
 *
 * slots.h -- what a program's handles of one kind name: objects of the API's.
 *
 * The table grows to the highest slot in use; what it takes is held by the machine's account.  Not
 * thread-safe: a session's thread owns it. */
#ifndef PIL_SLOTS_H
#define PIL_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/wire.h"

struct account;

struct slots {
	struct account *account; /* borrowed */
	uint32_t limit;          /* at most WIRE_MAX_SLOTS */
	uint32_t n;              /* of @slot */
	uint32_t top;            /* those in use are below */
	struct slot {
		uint32_t handle; /* 0: free */
		void *object;
	} *slot;
};

void slots_init(struct slots *slots, struct account *account, uint32_t limit);
/* The objects are the caller's: take them out first, by slots_take_any(). */
void slots_finish(struct slots *slots);

/* WIRE_OK; WIRE_E_INVALID: no handle of this table, or its slot is in use; WIRE_E_NO_MEMORY. */
enum wire_status slots_put(struct slots *slots, uint32_t handle, void *object);
void *slots_find(const struct slots *slots, uint32_t handle); /* NULL: there is none */
void *slots_take(struct slots *slots, uint32_t handle);       /* the same, and frees the slot */
void *slots_take_any(struct slots *slots);                    /* NULL: there is none left */

#endif
