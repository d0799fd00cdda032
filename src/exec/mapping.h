/* SPDX-License-Identifier: Apache-2.0
 *
 * mapping.h -- how many mappings of this process each machine may take. */
#ifndef PIL_MAPPING_H
#define PIL_MAPPING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

enum {
	MAPPING_MAX_OF_MACHINE = 8192,
	MAPPING_MAX_WHEN_SHORT = 256, /* once half of all are taken */
	MAPPING_MAX = 56 << 10,       /* of all machines */
};

/* One more for the machine whose are counted in *@own. */
bool mapping_take(_Atomic(uint32_t) *own) PIL_MUST_CHECK;
void mapping_give(_Atomic(uint32_t) *own);

#endif
