/* SPDX-License-Identifier: Apache-2.0
 *
 * device.h -- one ggml device, opened: what it can do.
 *
 * Thread-safe: sessions run in threads of their own and share the device. */
#ifndef PIL_DEVICE_H
#define PIL_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "exec/card.h"
#include "exec/ggml/ggml_host.h"

enum {
	DEVICE_MAX_EXTRA = 8,
	/* malloc() mostly takes fresh pages for what is as large */
	DEVICE_MMAP_THRESHOLD = 128 << 10,
};

struct gg_device {
	struct ggml_host *host; /* borrowed, as is @card */
	struct card *card;
	struct ggml_backend_device *dev;
	struct ggml_backend_buffer_type *buft;
	/* Buffer types in which the device runs matrix products faster than in @buft (AMX,
	 * repacked), in the device's order of preference, and an empty buffer of each to ask about
	 * support. */
	struct ggml_backend_buffer_type *extra[DEVICE_MAX_EXTRA];
	struct ggml_backend_buffer *extra_probe[DEVICE_MAX_EXTRA];
	int n_extra;
	bool reference;   /* the host's CPU cores compute */
	bool host_memory; /* tensors can be read and written through pointers */
	int n_threads;    /* of a reference device */
	uint64_t alignment, max_buffer;
};

/* Opens the device that @host's ggml calls @name, the way to @card (borrowed).  Released with
 * gg_device_destroy(), which must not happen while sessions run. */
int gg_device_open(struct gg_device **out, struct ggml_host *host, const char *name,
		   struct card *card, struct pil_err *err) PIL_MUST_CHECK;
void gg_device_destroy(struct gg_device *device); /* NULL is fine */

#endif
