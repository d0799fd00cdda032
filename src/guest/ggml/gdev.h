/* SPDX-License-Identifier: Apache-2.0
 *
 * gdev.h -- a device of the broker as the program's ggml sees it, and what this library keeps for
 * all of them. */
#ifndef PIL_GDEV_H
#define PIL_GDEV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/ggml/ggml.h"
#include "guest/ggml/abi.h"
#include "guest/ggml/cgraphs.h"
#include "guest/ggml/opmap.h"
#include "guest/ggml/program.h"
#include "guest/ggml/query.h"
#include "link/channel.h"
#include "link/upload.h"

struct gdev_shm { /* a host buffer the executor has mapped too */
	uintptr_t base;
	uint64_t bytes;
	uint32_t shm;
};

struct gdev {
	struct ggml_backend_device abi;
	union abi_buffer_type buft, host_buft;
	char buft_name[32], host_buft_name[32];
	struct wire_device info;
	char name[32];
	char description[192];

	pthread_mutex_t open_lock;
	_Atomic(struct channel *) chan; /* opened at the first need, then kept */
	bool open_failed;
	_Atomic(bool) no_answer; /* of the broker's, after that */

	/* under chan->lock */
	struct query query;
	struct cgraphs graphs;
	struct upload upload;
	struct gdev_shm shms[WIRE_MAX_SHM];
	uint32_t n_shms;
};

struct gplugin {
	struct program program;
	struct opmap opmap;
	struct channel_target target;
	struct ggml_backend_reg reg;
	struct gdev devices[WIRE_MAX_DEVICES];
	uint32_t n_devices;
};
extern struct gplugin gplugin;

/* Fills @dev for @info; @index is its place in the list. */
void gdev_init(struct gdev *dev, uint32_t index, const struct wire_device *info);

/* The channel of @dev, opened if it is not yet; NULL (after one line on stderr) if it cannot be. */
struct channel *gdev_channel(struct gdev *dev);

static inline struct gdev *gdev_of(struct ggml_backend_device *abi)
{
	return container_of(abi, struct gdev, abi);
}

/* The shared memory that holds all of [@data, @data + @bytes), or NULL. */
const struct gdev_shm *gdev_find_shm(const struct gdev *dev, const void *data, uint64_t bytes);

/* Makes @buft of @members, in the layout of the program's generation. */
void gdev_buft_init(union abi_buffer_type *buft, const struct abi_buffer_type_v2 *members);

/* Whether tensors in @buft are in ordinary memory; through the program's own table. */
bool gdev_buft_is_host(union abi_buffer_type *buft);

/* Copies @text leaving out words that make programs treat a device as one of another kind. */
void gdev_describe(char *out, size_t out_size, const char *text);

#endif
