/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a process may have 65530 mappings (vm.max_map_count).  At that limit no
 * thread starts any more, of whichever machine, and the executor ends.  Buffers, and what is mapped
 * of programs' files and memory, take one each.  So all of them together have a bound that leaves
 * room for what is not counted: stacks, libraries, the allocator's.
 *
 * Machines that act together must not take all of it either: once half is taken, a machine gets
 * more only while it has few. */
#include "exec/mapping.h"

#include <stdatomic.h>

static atomic_uint n_all;

bool mapping_take(_Atomic(uint32_t) *own)
{
	unsigned all = atomic_fetch_add(&n_all, 1), mine = atomic_fetch_add(own, 1);

	if (all < MAPPING_MAX &&
	    mine < (all < MAPPING_MAX / 2 ? MAPPING_MAX_OF_MACHINE : MAPPING_MAX_WHEN_SHORT))
		return true;
	mapping_give(own);
	return false;
}

void mapping_give(_Atomic(uint32_t) *own)
{
	atomic_fetch_sub(own, 1);
	atomic_fetch_sub(&n_all, 1);
}
