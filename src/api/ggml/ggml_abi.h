/* SPDX-License-Identifier: Apache-2.0
 *
 * ggml_abi.h -- ggml's tensors and graphs in memory, as both the plugin and the executor see them.
 *
 * The layouts are those of ggml 0.25 to 0.27, which did not change them.  struct ggml_cgraph is
 * private to ggml.  A ggml that has other layouts is refused before these are used. */
#ifndef PIL_GGML_ABI_H
#define PIL_GGML_ABI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum {
	ABI_MAX_DIMS = 4,
	ABI_MAX_SRC = 10,
	ABI_MAX_PARAMS = 16,
	ABI_MAX_NAME = 64,
	ABI_NUM_TYPES = 43,
	ABI_NUM_OPS = 101,
	ABI_NUM_UNARY = 22,
	ABI_NUM_GLU = 7,
	ABI_FLAGS = 31, /* input, output, param, loss, compute */
};

struct ggml_backend_buffer;

struct ggml_tensor {
	int type;
	struct ggml_backend_buffer *buffer;
	int64_t ne[ABI_MAX_DIMS];
	size_t nb[ABI_MAX_DIMS];
	int op;
	int32_t op_params[ABI_MAX_PARAMS];
	int32_t flags;
	struct ggml_tensor *src[ABI_MAX_SRC];
	struct ggml_tensor *view_src;
	size_t view_offs;
	void *data;
	char name[ABI_MAX_NAME];
	void *extra;
	char padding[8];
};
static_assert(sizeof(struct ggml_tensor) == 336, "struct ggml_tensor of ggml 0.25 to 0.27");

struct ggml_hash_set {
	size_t size;
	uint32_t *used;
	struct ggml_tensor **keys;
};

struct ggml_cgraph {
	int size;
	int n_nodes;
	int n_leafs;
	struct ggml_tensor **nodes;
	struct ggml_tensor **grads;
	struct ggml_tensor **grad_accs;
	struct ggml_tensor **leafs;
	int32_t *use_counts;
	struct ggml_hash_set visited_hash_set;
	int order;
	uint64_t uid; /* two graphs with the same one, not 0, are the same */
};

#endif
