/* SPDX-License-Identifier: Apache-2.0
 *
 * ggml_host.h -- the host's ggml, loaded with all of its back ends, and what it calls things.
 *
 * One per process, for its whole life: ggml cannot be unloaded safely. */
#ifndef PIL_GGML_HOST_H
#define PIL_GGML_HOST_H

#include "api/ggml/ggml.h"
#include "api/ggml/tensor_ops.h"
#include "base/compiler.h"
#include "base/err.h"
#include "exec/ggml/ggml_api.h"
#include "exec/ggml/graph_check.h"

struct ggml_host {
	struct ggml_api api;
	char version[32];
	int op_to_host[WIRE_NUM_TENSOR_OPS]; /* -1: this ggml has no such operation */
	int unary_to_host[WIRE_NUM_UNARY_OPS];
	int glu_to_host[WIRE_NUM_GLU_OPS];
	struct graph_types types;
};

/* Loads libggml from @ggml_dir (NULL: where the dynamic linker finds it) and its back ends from the
 * same place.  Fails with a sentence naming the version when it is one this code does not know. */
int ggml_host_load(struct ggml_host **out, const char *ggml_dir,
		   struct pil_err *err) PIL_MUST_CHECK;

/* Fills at most @max records, index in ggml's own order of devices.  Returns the count. */
int ggml_host_devices(struct ggml_host *host, struct wire_device *out, int max);

void ggml_host_destroy(struct ggml_host *host); /* NULL is fine; the libraries stay mapped */

#endif
