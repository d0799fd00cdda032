/* SPDX-License-Identifier: Apache-2.0
 *
 * plugin_rig.h -- the plugin with a device of fake_exec, called as a program's ggml does. */
#ifndef PIL_PLUGIN_RIG_H
#define PIL_PLUGIN_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guest/ggml/devbuf.h"
#include "guest/ggml/gdev.h"
#include "lib/fake_exec.h"

static inline const char *op_name(int op)
{
	static const char *const names[] = {"NONE", "MUL_MAT", "GET_ROWS", "ADD", "CUSTOM", "GLU"};

	return names[op];
}

static inline const char *sub_name(int op)
{
	return op ? "TRUNC" : "SWIGLU_CLAMP";
}

static inline int64_t blck_size(int type)
{
	return type == 8 ? 32 : 1;
}

static inline size_t type_size(int type)
{
	return type == 8 ? 34 : 4;
}

struct rig {
	struct fake_exec x;
	struct gdev dev;
	struct ggml_backend *backend;
};

static inline void prepare(struct rig *r, enum abi_generation generation, uint32_t flags)
{
	struct wire_device info = {.description = "test"};

	memset(r, 0, sizeof(*r));
	r->x.flags = flags;
	gplugin.program = (struct program){.generation = generation,
					   .op_name = op_name,
					   .unary_op_name = sub_name,
					   .glu_op_name = sub_name,
					   .blck_size = blck_size,
					   .type_size = type_size};
	opmap_init(&gplugin.opmap, &gplugin.program);
	gdev_init(&r->dev, 0, &info);
}

/* Takes @fd, the program's end of a stream; as gdev.c opens a session. */
static inline bool connect_to(struct rig *r, int fd)
{
	struct channel *chan = NULL;

	if (channel_create_fd(&chan, &wire_api_ggml, fd, NULL))
		return false;
	if (!query_init(&r->dev.query, &gplugin.opmap, gg_welcome_of(chan))) {
		channel_destroy(chan);
		return false;
	}
	r->dev.chan = chan;
	return true;
}

static inline void begin(struct rig *r, enum abi_generation generation, uint32_t flags)
{
	prepare(r, generation, flags);
	assert_true(connect_to(r, fake_exec_start(&r->x)));
	r->backend = r->dev.abi.iface.init_backend(&r->dev.abi, NULL);
	assert_non_null(r->backend);
}

static inline void disconnect(struct rig *r)
{
	channel_destroy(r->dev.chan);
	fake_exec_finish(&r->x);
	query_finish(&r->dev.query);
	cgraphs_finish(&r->dev.graphs);
	upload_finish(&r->dev.upload);
}

static inline void end(struct rig *r)
{
	r->backend->iface.free(r->backend);
	disconnect(r);
	assert_false(r->x.bad);
}

/* As ggml does it. */
static inline struct ggml_backend_buffer *alloc(union abi_buffer_type *buft, size_t size)
{
	struct ggml_backend_buffer *b = buft->v2.alloc_buffer(buft, size); /* second in both */

	assert_non_null(b);
	assert_ptr_equal(b->buft, buft);
	return b;
}

static inline void release(struct ggml_backend_buffer *b)
{
	b->iface.free_buffer(b);
	free(b);
}

static inline struct ggml_tensor tensor(struct ggml_backend_buffer *b, size_t offset, int64_t n)
{
	size_t bytes = 4 * (size_t)n;

	return (struct ggml_tensor){.buffer = b,
				    .ne = {n, 1, 1, 1},
				    .nb = {4, bytes, bytes, bytes},
				    .data = b ? (char *)b->iface.get_base(b) + offset : NULL};
}

#endif
