/* SPDX-License-Identifier: Apache-2.0
 *
 * graph_check.h -- decides whether a graph that came over the wire may be shown to a vendor's ggml.
 *
 * ggml trusts its callers: an operation given shapes, strides, types or parameters that do not fit
 * together aborts the process or reads and writes outside of its tensors.  A graph that passes here
 * does neither: each access of each operation stays inside the buffers the graph names, as long as
 * the values listed in the index table are checked before every run.
 *
 * Pure functions: no I/O, no allocation, no state; any thread. */
#ifndef PIL_GRAPH_CHECK_H
#define PIL_GRAPH_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "api/ggml/ggml.h"
#include "api/ggml/tensor_ops.h"

struct graph_types { /* how the host's ggml lays out its types; block 0: unknown */
	uint32_t block[WIRE_MAX_TYPES], bytes[WIRE_MAX_TYPES];
	bool bf16_maps; /* it computes activations in BF16: 0.27 does, an older one may abort */
};

struct graph_env {
	const struct graph_types *types;
	const uint8_t *ops; /* bit sets of what may be asked for: WIRE_T_, WIRE_UNARY_, WIRE_GLU_ */
	const uint8_t *unary, *glu;
	/* Size of a live buffer of this session; false: no such buffer.  Not used by queries. */
	bool (*buffer_size)(void *ctx, uint32_t buffer, uint64_t *bytes);
	void *ctx;
	bool accelerator; /* the device is not the host's CPU, and so much faster */
};

/* In each run every element of @tensor (I32 or I64) must be in [0, limit) just before tensor
 * @before is computed, with all nodes in front of that one done; 0: before the run. */
struct graph_index {
	uint32_t tensor;
	uint32_t before;
	int64_t limit;
	uint32_t clean_until; /* nodes below this one do not write to it; for the check itself */
};

enum { GRAPH_MAX_STOPS = 1024 }; /* distinct graph_index::before, besides 0 */

/* What a graph that passed needs. */
struct graph_needs {
	struct graph_index *index; /* to be checked; the caller's, @max_index; by @before */
	uint32_t max_index, n_index;
	uint32_t n_stops; /* places within the graph where indices are checked */
	/* NULL, or where to write the time of each tensor, @n of graph_check() */
	uint64_t *cost_ns;
	uint64_t time_ns; /* of all: of one core of a slow CPU, at most */
	/* Bytes of scratch memory of the node that takes most: in all, and more per thread. */
	uint64_t scratch, thread_scratch;
};

struct graph_fault {
	uint32_t tensor;
	const char *why; /* a literal */
};

/* Checks @n tensors.  On false @fault says which tensor breaks which rule. */
bool graph_check(const struct graph_env *env, const struct wire_tensor *t, uint32_t n,
		 struct graph_needs *needs, struct graph_fault *fault);

/* The same rules for the last of @n tensors alone, whose place in memory is not known yet. */
bool graph_check_query(const struct graph_env *env, const struct wire_tensor *t, uint32_t n,
		       struct graph_fault *fault);

/* Whether the device computes node @t; views and leaves need nothing done. */
bool graph_computes(const struct wire_tensor *t);
/* A node the program builds and leaves out (see ggml_build_forward_select()): it must be sound, but
 * its index is not looked at.  The host's ggml must not get it as an operation. */
bool graph_idle(const struct wire_tensor *t);

/* Whether there are rules for operation @op at all; without, it is always refused. */
bool graph_check_knows(uint32_t op);

#endif
