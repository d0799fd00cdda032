/* SPDX-License-Identifier: Apache-2.0
 *
 * bus.h -- who answers at an address: one bus for memory-mapped registers, one for I/O ports.
 *
 * Filled before the first vCPU runs and never changed afterwards, so that lookups need no lock. */
#ifndef PIL_BUS_H
#define PIL_BUS_H

#include <stdbool.h>
#include <stdint.h>

enum { BUS_MAX_REGIONS = 8 };

/* Called on vCPU threads, several at once.  @off + @len (1 to 8) may reach beyond the region. */
struct bus_region {
	uint64_t base, len_bytes;
	uint64_t (*read)(void *owner, uint64_t off, unsigned len);
	void (*write)(void *owner, uint64_t off, unsigned len, uint64_t value);
	void *owner;
};

struct bus {
	struct bus_region regions[BUS_MAX_REGIONS];
	int n;
};

void bus_add(struct bus *bus, const struct bus_region *region); /* a full bus is a bug */

/* What no region claims reads as all ones and ignores writes. */
uint64_t bus_read(const struct bus *bus, uint64_t addr, unsigned len);
void bus_write(const struct bus *bus, uint64_t addr, unsigned len, uint64_t value);

#endif
