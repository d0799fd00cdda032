/* SPDX-License-Identifier: Apache-2.0
 *
 * A list of regions that is searched from the start: there are few of them.  A read where nobody
 * answers gives all ones, as on hardware; a write there is dropped. */
#include "vmm/bus.h"

#include <assert.h>
#include <stddef.h>

void bus_add(struct bus *bus, const struct bus_region *region)
{
	assert(bus->n < BUS_MAX_REGIONS);
	bus->regions[bus->n++] = *region;
}

static const struct bus_region *region_at(const struct bus *bus, uint64_t addr)
{
	for (int i = 0; i < bus->n; i++)
		if (addr - bus->regions[i].base < bus->regions[i].len_bytes)
			return &bus->regions[i];
	return NULL;
}

uint64_t bus_read(const struct bus *bus, uint64_t addr, unsigned len)
{
	const struct bus_region *r = region_at(bus, addr);

	return r ? r->read(r->owner, addr - r->base, len) : UINT64_MAX;
}

void bus_write(const struct bus *bus, uint64_t addr, unsigned len, uint64_t value)
{
	const struct bus_region *r = region_at(bus, addr);

	if (r)
		r->write(r->owner, addr - r->base, len, value);
}
