/* SPDX-License-Identifier: Apache-2.0
 *
 * gstream.h -- what ggml calls a backend: a place to queue work for a device; and events in it. */
#ifndef PIL_GSTREAM_H
#define PIL_GSTREAM_H

#include "guest/ggml/abi.h"

struct gdev;

struct ggml_backend *gstream_create(struct gdev *dev); /* NULL if the device cannot be reached */

struct ggml_backend_event *gstream_event_new(struct ggml_backend_device *abi);
void gstream_event_free(struct ggml_backend_device *abi, struct ggml_backend_event *event);
void gstream_event_synchronize(struct ggml_backend_device *abi, struct ggml_backend_event *event);

#endif
