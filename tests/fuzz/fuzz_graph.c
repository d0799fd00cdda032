/* SPDX-License-Identifier: Apache-2.0
 *
 * The graph check against any bytes.  An input that starts with an odd byte is a valid graph (the
 * second byte says which, eight bytes are the seed of its sizes) with words of its tensors replaced
 * by records of a 16-bit position and a 64-bit value; another is tensors as they come, behind eight
 * bytes, in buffers of fixed sizes. */
#include <stdlib.h>
#include <string.h>

#include "exec/ggml/graph_check.h"
#include "lib/op_shapes.h"

enum { MAX_FUZZ_TENSORS = 64, N_BUFFERS = 4 };

static bool size_of(void *ctx, uint32_t buffer, uint64_t *bytes)
{
	static const uint64_t sizes[N_BUFFERS] = {0, 4096, 1 << 20, 64};

	(void)ctx;
	*bytes = sizes[buffer % N_BUFFERS];
	return buffer < N_BUFFERS && *bytes;
}

static void check_promises(const struct graph_env *env, const struct wire_tensor *t, uint32_t n,
			   const struct graph_index *index, uint32_t n_index)
{
	for (uint32_t i = 0; i < n_index; i++) {
		const struct wire_tensor *x = &t[index[i].tensor];

		if (index[i].tensor >= n || index[i].limit < 1 || (x->type != 26 && x->type != 27))
			abort();
		if (index[i].before >= n || (i && index[i].before < index[i - 1].before) ||
		    (index[i].before && !graph_computes(&t[index[i].before])))
			abort();
	}
	for (uint32_t i = 0; i < n; i++) {
		uint64_t bytes, end = t[i].offset;

		if (!env->buffer_size(env->ctx, t[i].buffer, &bytes) || end > bytes)
			abort();
		for (int d = 0; d < WIRE_MAX_DIMS; d++)
			if (t[i].ne[d] > 1 && t[i].ne[0] && t[i].ne[1] && t[i].ne[2] &&
			    t[i].ne[3] && (d || op_shapes_types.block[t[i].type] == 1))
				end += (uint64_t)(t[i].ne[d] - 1) * t[i].nb[d];
		if (end > bytes)
			abort();
	}
}

static void check_raw(const uint8_t *data, size_t size)
{
	static struct wire_tensor t[MAX_FUZZ_TENSORS];
	struct graph_index index[MAX_FUZZ_TENSORS];
	uint32_t n = (uint32_t)(size / sizeof(t[0]));
	struct graph_needs needs = {.index = index, .max_index = MAX_FUZZ_TENSORS};
	struct op_graph none = {0};
	struct graph_env env = op_shapes_env(&none);
	struct graph_fault fault;

	env.buffer_size = size_of;
	if (n > MAX_FUZZ_TENSORS)
		n = MAX_FUZZ_TENSORS;
	memcpy(t, data, n * sizeof(t[0]));
	if (graph_check(&env, t, n, &needs, &fault))
		check_promises(&env, t, n, index, needs.n_index);
	else if (!fault.why || fault.tensor >= n)
		abort();
	graph_check_query(&env, t, n, &fault);
}

static void check_patched(const uint8_t *data, size_t size)
{
	struct graph_index index[OP_GRAPH_MAX_TENSORS];
	struct graph_needs needs = {.index = index, .max_index = OP_GRAPH_MAX_TENSORS};
	struct graph_fault fault;
	struct op_random r = {0};
	struct graph_env env;
	struct op_graph g;

	memcpy(&r.state, data + 1, sizeof(r.state));
	op_shapes_make(&g, data[0] % op_shapes_count(), &r);
	for (size_t i = 9; i + 10 <= size; i += 10) {
		uint16_t word;

		memcpy(&word, data + i, sizeof(word));
		memcpy((uint8_t *)g.t + word % (g.n * WIRE_TENSOR_WORDS) * 8, data + i + 2, 8);
	}
	env = op_shapes_env(&g);
	if (graph_check(&env, g.t, g.n, &needs, &fault))
		check_promises(&env, g.t, g.n, index, needs.n_index);
	else if (!fault.why || fault.tensor >= g.n)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 10)
		return 0;
	if (data[0] & 1)
		check_patched(data + 1, size - 1);
	else
		check_raw(data + 8, size - 8);
	return 0;
}
