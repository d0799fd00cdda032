/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PIL_GRAPH_CHECK_H
#define PIL_GRAPH_CHECK_H
#include "wire.h"
struct graph_types {
	uint32_t block[WIRE_MAX_TYPES], bytes[WIRE_MAX_TYPES];
};
struct graph_env {
	const struct graph_types *types;
	const uint8_t *ops;
	const uint8_t *unary, *glu;
	bool (*buffer_size)(void *ctx, uint32_t buffer, uint64_t *bytes);
	void *ctx;
};
struct graph_index {
	uint32_t tensor;
	uint32_t allow_minus_one;
	int64_t limit;
};
struct graph_fault {
	uint32_t tensor;
	const char *why;
};
bool graph_check(const struct graph_env *env, const struct wire_tensor *t, uint32_t n,
		 struct graph_index *index, uint32_t *n_index, struct graph_fault *fault);
bool graph_check_query(const struct graph_env *env, const struct wire_tensor *t, uint32_t n,
		       struct graph_fault *fault);
bool graph_check_knows(uint32_t op);
#endif
