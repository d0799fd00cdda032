/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of exposed.def. */
#include "agent/exposed.h"

const struct exposed exposed[EXPOSED_NUM] = {
#define EXPOSED(api, plugin, variable)                                                             \
	{#api, plugin, EXPOSED_LIB "/" plugin, variable, variable "=" EXPOSED_LIB "/" plugin},
#include "agent/exposed.def"
#undef EXPOSED
};
