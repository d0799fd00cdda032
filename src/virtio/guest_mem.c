/* SPDX-License-Identifier: Apache-2.0
 *
 * Looks addresses of the guest up in the table of its ranges.  A piece that is not wholly in one
 * range is refused. */
#include "virtio/guest_mem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct guest_mem_range *range_of(const struct guest_mem *mem, uint64_t gpa,
					      uint64_t len_bytes)
{
	for (int i = 0; i < mem->n_ranges; i++) {
		const struct guest_mem_range *r = &mem->ranges[i];

		if (gpa >= r->gpa && gpa - r->gpa < r->len_bytes &&
		    len_bytes <= r->len_bytes - (gpa - r->gpa))
			return r;
	}
	return NULL;
}

void *guest_mem_at(const struct guest_mem *mem, uint64_t gpa, uint64_t len_bytes)
{
	const struct guest_mem_range *r = range_of(mem, gpa, len_bytes);

	return r ? r->host + (gpa - r->gpa) : NULL;
}

int guest_mem_discard(const struct guest_mem *mem, uint64_t gpa, uint64_t len_bytes)
{
	const struct guest_mem_range *r = range_of(mem, gpa, len_bytes);
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first, end;

	if (!r)
		return -EINVAL;
	first = (gpa - r->gpa + page - 1) & ~(page - 1);
	end = (gpa - r->gpa + len_bytes) & ~(page - 1);
	if (first >= end)
		return 0;
	if (mem->fd >= 0)
		return fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 (off_t)(r->fd_offset + first), (off_t)(end - first))
			       ? -errno
			       : 0;
	return madvise(r->host + first, end - first, MADV_DONTNEED) ? -errno : 0;
}

uint64_t guest_mem_gpa(const struct guest_mem *mem, const void *host)
{
	const uint8_t *p = host;

	for (int i = 0; i < mem->n_ranges; i++) {
		const struct guest_mem_range *r = &mem->ranges[i];

		if (p >= r->host && (uint64_t)(p - r->host) < r->len_bytes)
			return r->gpa + (uint64_t)(p - r->host);
	}
	return UINT64_MAX;
}
