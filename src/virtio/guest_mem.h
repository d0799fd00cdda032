/* SPDX-License-Identifier: Apache-2.0
 *
 * guest_mem.h -- the memory of a guest, as its devices see it.
 *
 * A few ranges of guest-physical addresses, each mapped at one place in our address space.  The
 * ranges are fixed before the first vCPU runs; lookups need no lock.  What lies in this memory may
 * change at any moment: copy once, then check, then use. */
#ifndef PIL_GUEST_MEM_H
#define PIL_GUEST_MEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

enum { GUEST_MEM_MAX_RANGES = 4 };

struct guest_mem_range {
	uint64_t gpa;       /* first guest-physical address */
	uint64_t len_bytes; /* gpa + len_bytes does not wrap */
	uint8_t *host;      /* where it is mapped here; borrowed */
	uint64_t fd_offset; /* of the range in struct guest_mem::fd */
};

struct guest_mem {
	struct guest_mem_range ranges[GUEST_MEM_MAX_RANGES];
	int n_ranges;
	int fd; /* the file behind all ranges, for vhost-user peers; -1: none; borrowed */
};

/* The @len_bytes bytes at guest-physical @gpa, or NULL unless all of them lie in one range. */
void *guest_mem_at(const struct guest_mem *mem, uint64_t gpa, uint64_t len_bytes);

/* Gives the host pages that lie wholly in [@gpa, @gpa + @len_bytes) back to the host; the guest
 * reads zeroes there afterwards.  0, -EINVAL when it is not the guest's memory, or -errno. */
int guest_mem_discard(const struct guest_mem *mem, uint64_t gpa, uint64_t len_bytes) PIL_MUST_CHECK;

/* The guest-physical address of @host, which guest_mem_at() returned. */
uint64_t guest_mem_gpa(const struct guest_mem *mem, const void *host);

#endif
