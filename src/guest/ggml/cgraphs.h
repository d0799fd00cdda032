/* SPDX-License-Identifier: Apache-2.0
 *
 * cgraphs.h -- the graphs the executor has, and how the program's next one is told to it.
 * Under the channel's lock. */
#ifndef PIL_CGRAPHS_H
#define PIL_CGRAPHS_H

#include <stdbool.h>
#include <stdint.h>

#include "api/ggml/ggml.h"
#include "guest/ggml/abi.h"

struct channel;
struct gdev;
struct opmap;

enum { CGRAPHS_KEPT = 12 };

struct cgraphs_entry {
	bool defined;
	uint64_t uid;
	const void *first; /* nodes[0] of the cgraph with that uid */
	int n_nodes;
	uint32_t n, max;
	uint64_t shape; /* hash of what patches do not change */
	struct wire_tensor *tensors;
	uint64_t used; /* clock of the last run */
	uint32_t device_us;
	bool read_next; /* the program read something right after the last run */
};

struct cgraphs_slot { /* of the map from a tensor's address to its index */
	const struct ggml_tensor *tensor;
	uint32_t index;
	uint32_t stamp;
};

struct cgraphs {
	struct cgraphs_entry entries[CGRAPHS_KEPT];
	uint64_t clock;
	struct cgraphs_entry *just_run; /* nothing has been asked of the device since */
	struct wire_tensor *next;       /* the graph being encoded */
	uint32_t n_next, max_next;
	struct cgraphs_slot *map;
	uint32_t map_size, stamp;
	uint64_t *patch;
	uint32_t patch_words, max_patch;
	bool complained;
};

/* Where a tensor's data is; false if it is in no buffer of this device. */
typedef bool cgraphs_locate_fn(void *ctx, const struct ggml_tensor *t, uint32_t *buffer,
			       uint64_t *offset);

/* Encodes @cgraph into graphs->next.  False, with the culprit in *@bad, if it names a tensor that
 * cannot be told to the executor. */
bool cgraphs_encode(struct cgraphs *graphs, const struct ggml_cgraph *cgraph,
		    const struct opmap *map, cgraphs_locate_fn *locate, void *ctx,
		    const struct ggml_tensor **bad);

/* Words of graphs->next that differ from @entry, as runs of GRAPH_PATCH in graphs->patch.
 * Returns the number of runs; UINT32_MAX if there is no memory for them. */
uint32_t cgraphs_diff(struct cgraphs *graphs, const struct cgraphs_entry *entry);

/* Queues what is needed for @cgraph to run, and its run.  An enum abi_status. */
int cgraphs_run(struct cgraphs *graphs, struct channel *chan, const struct ggml_cgraph *cgraph,
		const struct opmap *map, cgraphs_locate_fn *locate, void *ctx);

/* The program asks for something else after a run: @read, to read a tensor, which is queued now.
 * What the run waited for leaves. */
void cgraphs_next(struct cgraphs *graphs, struct channel *chan, bool read);

/* After a failure: the executor may not have what we think it has. */
void cgraphs_forget(struct cgraphs *graphs);
void cgraphs_finish(struct cgraphs *graphs);

#endif
