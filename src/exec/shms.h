/* SPDX-License-Identifier: Apache-2.0
 *
 * shms.h -- what a program shares with its session: memory, and files of weights.
 *
 * A session's thread owns it.  What is mapped counts in the machine's account. */
#ifndef PIL_SHMS_H
#define PIL_SHMS_H

#include <stdbool.h>
#include <stdint.h>

#include "exec/account.h"
#include "exec/file_map.h"
#include "wire/wire.h"

struct shm {
	uint32_t handle; /* 0: slot free */
	bool is_file;    /* of weights; else memory */
	uint64_t bytes;
	struct file_map *map;
};

struct shms {
	struct account *account;
	struct shm slots[WIRE_MAX_SHM];
};

void shms_init(struct shms *shms, struct account *account);
void shms_finish(struct shms *shms); /* drops what is left */

/* Takes @add with its descriptor (borrowed; kept is what is mapped).  False: the peer broke a rule;
 * else *@status says what came of it. */
bool shms_add(struct shms *shms, const struct wire_shm_add *add, int fd, enum wire_status *status);
bool shms_drop(struct shms *shms, uint32_t handle); /* false: no such handle */

struct shm *shms_find(struct shms *shms, uint32_t handle); /* NULL: no such handle */

/* Has the kernel had no memory for one of them? */
bool shms_lost(struct shms *shms);

/* Is [offset, offset + bytes) inside? */
static inline bool shm_holds(const struct shm *shm, uint64_t offset, uint64_t bytes)
{
	return offset <= shm->bytes && bytes <= shm->bytes - offset;
}

#endif
