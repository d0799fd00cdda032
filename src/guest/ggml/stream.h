/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.h -- what ggml calls a backend: a place to queue work for a device; and events in it. */
#ifndef PIL_STREAM_H
#define PIL_STREAM_H

#include "abi.h"

struct gdev;

struct ggml_backend *stream_create(struct gdev *dev); /* NULL if the device cannot be reached */

struct ggml_backend_event *stream_event_new(struct ggml_backend_device *abi);
void stream_event_free(struct ggml_backend_device *abi, struct ggml_backend_event *event);
void stream_event_synchronize(struct ggml_backend_device *abi, struct ggml_backend_event *event);

#endif
