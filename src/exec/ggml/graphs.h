/* SPDX-License-Identifier: Apache-2.0
 *
 * graphs.h -- the graphs a session has defined, checked and built for the host's ggml.
 *
 * Not thread-safe: a session's thread owns its graphs. */
#ifndef PIL_GRAPHS_H
#define PIL_GRAPHS_H

#include <stdbool.h>
#include <stdint.h>

#include "exec/ggml/buffers.h"
#include "api/ggml/ggml.h"

enum {
	GRAPHS_MAX_TENSORS = 4 * WIRE_MAX_TENSORS,     /* of a session */
	GRAPHS_MAX_OF_MACHINE = 16 * WIRE_MAX_TENSORS, /* of all its sessions */
};

struct gg_graph {
	uint32_t handle; /* 0: slot free */
	uint32_t n_tensors, cap_tensors;
	struct wire_tensor *wire; /* as defined and patched since */
	struct ggml_context *context;
	struct ggml_tensor **tensors; /* one per wire tensor */
	struct ggml_cgraph *cgraph;   /* NULL: refused, cannot be run */
	struct graph_index *index;    /* contents to check in each run */
	uint32_t n_index, n_stops;
	uint64_t held_bytes;    /* on the machine's account for all this */
	uint64_t buffers_epoch; /* buffers::epoch when last resolved */
	uint64_t *cost_ns;      /* per wire tensor, and of all: see struct graph_needs */
	uint64_t total_ns;
	int64_t last_us; /* what it took when it ran last; 0: it has not run as it is */
};

struct graphs {
	struct gg_device *device;
	struct buffers *buffers;
	uint32_t cap_tensors;   /* of all slots together; at most GRAPHS_MAX_TENSORS */
	uint64_t scratch_bytes; /* charged for what the back end keeps */
	struct gg_graph slots[WIRE_MAX_GRAPHS];
};

void graphs_init(struct graphs *g, struct gg_device *device, struct buffers *buffers);
void graphs_finish(struct graphs *g);

/* A definition has two halves, so that what a peer has not sent yet takes memory nowhere else: this
 * one says in *@into where its @n tensors are to be put (NULL: no memory; the handle is defined all
 * the same), graphs_defined() that they are there.  False: the peer broke the protocol. */
bool graphs_define(struct graphs *g, uint32_t handle, uint32_t n, struct wire_tensor **into);

/* A status other than OK leaves the handle defined but not runnable.  @why (a literal, may be NULL)
 * names the rule. */
enum wire_status graphs_defined(struct graphs *g, uint32_t handle, uint32_t n, const char **why);

/* So does a patch: the graph that one of @tail_bytes may be for, NULL: none; its runs, one by one
 * (false: malformed; @patch is zeroed before the first); and its end. */
struct graph_patch {
	struct gg_graph *graph;
	bool structure; /* the host's graph must be built anew */
};
bool graphs_patch(struct graphs *g, uint32_t handle, uint32_t tail_bytes,
		  struct graph_patch *patch);
bool graphs_patch_run(struct graph_patch *patch, const struct wire_run *run, const uint8_t *words);
enum wire_status graphs_patched(struct graphs *g, struct graph_patch *patch, const char **why);
bool graphs_free(struct graphs *g, uint32_t handle);

/* One run of a graph, part by part: what a part writes and a later one uses as an index is looked
 * at in between.  Most graphs have one part. */
struct graphs_run {
	struct gg_graph *graph;
	uint32_t index; /* the first that has not been looked at */
	int n_done;     /* nodes in the parts so far */
	int n_parts;
	struct ggml_cgraph part; /* in use unless the graph is one part */
};

/* The first part, ready to compute, its indices checked; NULL with @status otherwise. */
struct ggml_cgraph *graphs_run_begin(struct graphs *g, struct graphs_run *run, uint32_t handle,
				     enum wire_status *status, const char **why);
/* The next part, once the last is computed; NULL: with @status OK, there is none. */
struct ggml_cgraph *graphs_run_next(struct graphs *g, struct graphs_run *run,
				    enum wire_status *status, const char **why);

/* SUPPORTS and ALLOC_SIZE: asks the device about the last of @n tensors. */
bool graphs_supports(struct graphs *g, const struct wire_tensor *tensors, uint32_t n,
		     bool *offload);
uint64_t graphs_alloc_size(struct graphs *g, const struct wire_tensor *tensors,
			   uint32_t n); /* 0: refused */

/* The operations this device may be asked for, as bit sets for the welcome. */
void graphs_known_ops(const struct ggml_host *host, struct gg_welcome *welcome);

#endif
