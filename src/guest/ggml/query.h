/* SPDX-License-Identifier: Apache-2.0
 *
 * query.h -- what the device can do: the executor's own answers, remembered.
 *
 * ggml asks about every node of every graph it splits; the answer depends on nothing but the
 * shapes, types and parameters of the node and its sources.  Not thread-safe: under the channel's
 * lock. */
#ifndef PIL_QUERY_H
#define PIL_QUERY_H

#include <stdbool.h>
#include <stdint.h>

#include "api/ggml/ggml.h"
#include "api/ggml/tensor_ops.h"
#include "base/compiler.h"
#include "guest/ggml/abi.h"
#include "link/channel.h"

struct opmap;

enum { QUERY_ENTRIES = 16384, QUERY_NO = 0, QUERY_YES = 1, QUERY_OFFLOAD = 2 };

struct query_entry {
	uint64_t hash[2]; /* both 0: empty */
	uint64_t value;
};

struct query_use {
	uint64_t name; /* hash; 0: empty */
	uint32_t uses; /* enum wire_use */
};

struct query {
	bool types[ABI_NUM_TYPES];            /* laid out alike on both sides */
	struct query_entry *supports, *sizes; /* [QUERY_ENTRIES] */
	uint32_t n_supports, n_sizes;
	struct query_use *uses; /* by name of a weight */
	uint32_t n_uses, max_uses;
};

/* What the executor said of its ggml, as the channel opened. */
static inline const struct gg_welcome *gg_welcome_of(const struct channel *chan)
{
	return chan->welcome_body;
}

/* Compares the executor's table of types with the program's.  False: there is no memory. */
bool query_init(struct query *q, const struct opmap *map,
		const struct gg_welcome *welcome) PIL_MUST_CHECK;
void query_finish(struct query *q);

/* QUERY_YES and QUERY_OFFLOAD bits for @op. */
uint32_t query_supports(struct query *q, struct channel *chan, const struct opmap *map,
			const struct ggml_tensor *op);

/* Bytes to set aside for @tensor. */
uint64_t query_alloc_size(struct query *q, struct channel *chan, const struct opmap *map,
			  const struct ggml_tensor *tensor);

/* Remembers that the program asked about a weight called @name in @op; and what it asked. */
void query_note_use(struct query *q, const char *name, enum wire_tensor_op op);
uint32_t query_uses(const struct query *q, const char *name);

#endif
