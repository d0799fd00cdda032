/* SPDX-License-Identifier: Apache-2.0
 *
 * account.h -- what each machine uses of a device.
 *
 * Thread-safe: sessions run in threads of their own and share the device. */
#ifndef PIL_ACCOUNT_H
#define PIL_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/list.h"
#include "wire/control.h"

struct gg_device;

enum {
	ACCOUNT_WEIGHT = 100, /* the usual one */
	ACCOUNT_MAX_WEIGHT = 1000,
};

/* What a machine may have us hold beside its data before that counts in its quota: what a few
 * ordinary programs need.  And at most, whatever its quota. */
#define ACCOUNT_FREE_HELD_BYTES (UINT64_C(32) << 20)
#define ACCOUNT_MAX_HELD_BYTES  (UINT64_C(2) << 30)

/* What one machine uses of the device, over all of its sessions. */
struct account {
	char machine[CONTROL_NAME_BYTES];
	uint64_t quota_bytes; /* 0: the whole device */
	unsigned weight;      /* of its turns; the time it uses counts less the more it is */
	uint64_t used_bytes;
	uint64_t held_bytes;            /* in our tables for it, see account_hold() */
	uint64_t shared_bytes;          /* of programs' memory that we have mapped */
	_Atomic(uint64_t) mapped_bytes; /* of their files, see file_map_open() */
	_Atomic(uint32_t) n_tensors;    /* of graphs */
	_Atomic(uint32_t) n_mappings;   /* of this process: buffers, files, memory; see mapping.h */
	int64_t virtual_us;             /* device time used, kept comparable between machines */
	int64_t used_us;                /* of the device and, outside of turns, of processors */
	int64_t active_us;              /* when its last turn ended */
	unsigned n_turns;               /* that run or wait */
	unsigned n_sessions;            /* 0: only the bill is left */
	struct list link;               /* gg_device::accounts */
};

/* The account of a machine, created at its first session.  NULL: out of memory.  It outlives its
 * last session while it is ahead of the others. */
struct account *account_get(struct gg_device *device, const char *machine, uint64_t quota_bytes);
void account_put(struct gg_device *device, struct account *account);

/* From now on it gets @weight / ACCOUNT_WEIGHT of the time of a usual one, while both ask.  0: it
 * is a usual one; too much: the most there is. */
void account_weigh(struct gg_device *device, struct account *account, unsigned weight);

/* Takes @bytes from the machine's share; false when that would go over it, or, on a reference
 * device, when all machines together could come to use more than the host has. */
bool account_charge(struct gg_device *device, struct account *account, uint64_t bytes);
void account_refund(struct gg_device *device, struct account *account, uint64_t bytes);

/* Takes @bytes of this process's own memory: received frames, tables of graphs and of weights, and
 * the like.  What a machine holds beyond ACCOUNT_FREE_HELD_BYTES is charged as well.  False: no. */
bool account_hold(struct gg_device *device, struct account *account, uint64_t bytes) PIL_MUST_CHECK;
void account_unhold(struct gg_device *device, struct account *account, uint64_t bytes);

/* Of what has been charged, @bytes lie in a program's file for now, and take no memory.  Committing
 * them again may find that others have taken it: false. */
void device_uncommit(struct gg_device *device, uint64_t bytes);
bool device_commit(struct gg_device *device, uint64_t bytes);

/* Takes @bytes of memory that a program shares with us: at most as much as the device has. */
bool account_share(struct gg_device *device, struct account *account, uint64_t bytes);
void account_unshare(struct gg_device *device, struct account *account, uint64_t bytes);

/* What the machine is told: its own share, or the device, live. */
void account_memory(struct gg_device *device, struct account *account, uint64_t *free_bytes,
		    uint64_t *total_bytes);

#endif
