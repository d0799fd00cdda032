/* SPDX-License-Identifier: Apache-2.0
 *
 * fake_ggml.h -- a struct ggml_host whose one device is plain memory and computes nothing, so that
 * sessions can be tested and fuzzed without any ggml on the machine. */
#ifndef PIL_FAKE_GGML_H
#define PIL_FAKE_GGML_H

#include "exec/ggml/device.h"
#include "exec/session.h"

/* A fresh device with one extra buffer type that takes 2-D matrices.  Freed by fake_device_free().
 */
struct gg_device *fake_device_new(void);

/* A session on it, as session_start(). */
int fake_session_start(struct gg_device *device, const struct session_opts *opts);
void fake_device_free(struct gg_device *device);

/* Graphs computed so far, and the number of nodes of the last one. */
extern unsigned fake_graphs_computed, fake_last_n_nodes;
extern char fake_last_name[64]; /* and of that one's last node */
/* What the device says it has. */
#define FAKE_MEMORY_BYTES ((size_t)64 << 20)
extern size_t fake_memory_bytes;
/* How long a graph takes that starts now, if nobody stops it. */
extern int fake_compute_ms;
/* Tensors stored through the extra buffer type. */
extern unsigned fake_weights_placed;

#endif
