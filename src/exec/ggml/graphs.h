/* SPDX-License-Identifier: Apache-2.0
 *
 * graphs.h -- the graphs a session has defined, checked and built for the host's ggml.
 *
 * Not thread-safe: a session's thread owns its graphs. */
#ifndef PIL_GRAPHS_H
#define PIL_GRAPHS_H

#include <stdbool.h>
#include <stdint.h>

#include "buffers.h"
#include "wire.h"

enum {
	GRAPHS_MAX_TENSORS = 4 * WIRE_MAX_TENSORS,     /* of a session: about 200 MiB */
	GRAPHS_MAX_OF_MACHINE = 16 * WIRE_MAX_TENSORS, /* of all its sessions */
};

struct gg_graph {
	uint32_t handle; /* 0: slot free */
	uint32_t n_tensors, cap_tensors;
	struct wire_tensor *wire; /* as defined and patched since */
	struct ggml_context *context;
	struct ggml_tensor **tensors; /* one per wire tensor */
	struct ggml_cgraph *cgraph;   /* NULL: refused, cannot be run */
	struct graph_index *index;    /* contents to check before each run */
	uint32_t n_index;
	uint64_t buffers_epoch; /* buffers::epoch when last resolved */
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

/* A status other than OK leaves the handle defined but not runnable.  @why (a literal, may be NULL)
 * names the rule.  A false means the peer broke the protocol. */
bool graphs_define(struct graphs *g, uint32_t handle, const struct wire_tensor *tensors, uint32_t n,
		   enum wire_status *status, const char **why);
bool graphs_patch(struct graphs *g, const struct wire_graph_patch *patch, const uint8_t *tail,
		  uint32_t tail_bytes, enum wire_status *status, const char **why);
bool graphs_free(struct graphs *g, uint32_t handle);

/* The graph ready to compute, its index tensors checked; NULL with @status otherwise. */
struct ggml_cgraph *graphs_ready(struct graphs *g, uint32_t handle, enum wire_status *status,
				 const char **why);

/* SUPPORTS and ALLOC_SIZE: asks the device about the last of @n tensors. */
bool graphs_supports(struct graphs *g, const struct wire_tensor *tensors, uint32_t n,
		     bool *offload);
uint64_t graphs_alloc_size(struct graphs *g, const struct wire_tensor *tensors,
			   uint32_t n); /* 0: refused */

/* The operations this device may be asked for, as bit sets for the welcome. */
void graphs_known_ops(const struct ggml_host *host, struct wire_welcome *welcome);

#endif
