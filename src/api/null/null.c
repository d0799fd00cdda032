/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of null.h, from ops.def. */
#include "api/null/null.h"

#define OP WIRE_OP_ASSERT
#include "api/null/ops.def"
#undef OP

static const struct wire_op ops[] = {
#define OP WIRE_OP_ENTRY
#include "api/null/ops.def"
#undef OP
};

const struct wire_api wire_api_null = {
	.id = WIRE_API_NULL,
	.version = 1,
	.name = "null",
	.ops = ops,
	.n_ops = sizeof(ops) / sizeof(ops[0]),
	.has_mem = true,
	.has_events = true,
	.max_buffers = WIRE_MAX_SLOTS,
};
