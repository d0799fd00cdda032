/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of ggml.h, from ops.def. */
#include "api/ggml/ggml.h"

#define OP WIRE_OP_ASSERT
#include "api/ggml/ops.def"
#undef OP

static const struct wire_op ops[] = {
#define OP WIRE_OP_ENTRY
#include "api/ggml/ops.def"
#undef OP
};

const struct wire_api wire_api_ggml = {
	.id = WIRE_API_GGML,
	.version = 1,
	.name = "ggml",
	.ops = ops,
	.n_ops = sizeof(ops) / sizeof(ops[0]),
	.has_mem = true,
	.welcome_bytes = sizeof(struct gg_welcome),
	.max_buffers = WIRE_MAX_BUFFERS,
};
