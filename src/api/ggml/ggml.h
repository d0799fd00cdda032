/* SPDX-License-Identifier: Apache-2.0
 *
 * ggml.h -- what a plugin and an executor that speak ggml say to each other beyond wire.h: tensors,
 * graphs, weights.
 *
 * A frame that breaks a rule of this file ends the session, as for wire.h. */
#ifndef PIL_API_GGML_H
#define PIL_API_GGML_H

#include "wire/api.h"

enum {
	WIRE_API_GGML = 1,

	WIRE_MAX_DIMS = 4,    /* GGML_MAX_DIMS */
	WIRE_MAX_SRC = 10,    /* GGML_MAX_SRC */
	WIRE_MAX_PARAMS = 16, /* 32-bit words; GGML_MAX_OP_PARAMS / 4 */
	WIRE_MAX_TYPES = 64,

	WIRE_MAX_BUFFERS = 4096, /* slots per session */
	WIRE_MAX_GRAPHS = 64,
	WIRE_MAX_TENSORS = 65536, /* in one graph */
	WIRE_MAX_GRAPH_TAIL = 32 << 20,
};
static_assert(WIRE_MAX_NAME == 64, "GGML_MAX_NAME");

extern const struct wire_api wire_api_ggml;

struct wire_type { /* how this executor's ggml lays out tensor type @type */
	uint32_t type;
	uint32_t block; /* elements */
	uint32_t bytes; /* per block */
	uint32_t reserved;
};

enum gg_welcome_flags {
	GG_WELCOME_PLAIN_SIZE = 1 << 0, /* alloc size is ggml_nbytes: do not ask */
};

struct gg_welcome {        /* ggml's part of the welcome */
	uint8_t ops[32];   /* bit n: tensor op n of tensor_ops.def is known and allowed */
	uint8_t unary[16]; /* likewise */
	uint8_t glu[16];
	uint32_t flags; /* enum gg_welcome_flags */
	uint32_t n_types;
	struct wire_type types[WIRE_MAX_TYPES];
};
static_assert(sizeof(struct gg_welcome) == 72 + WIRE_MAX_TYPES * 16, "gg_welcome");

enum wire_tensor_flags {
	WIRE_TENSOR_NODE = 1 << 0, /* computed by the graph; others are leaves with data */
	WIRE_TENSOR_INPUT = 1 << 1,
	WIRE_TENSOR_OUTPUT = 1 << 2,
	WIRE_TENSOR_PARAM = 1 << 3,
	WIRE_TENSOR_LOSS = 1 << 4,
	WIRE_TENSOR_COMPUTE = 1 << 5,
	WIRE_TENSOR_ALL = (1 << 6) - 1,
};

/* One tensor of a graph.  Indices are into the graph's array plus one, 0 is "none"; they point at
 * lower entries only, but that src[1] of a CPY, its destination, may be the CPY itself.  For UNARY
 * and GLU, params[0] holds the stable number of tensor_ops.def instead of the program's own. */
struct wire_tensor {
	uint32_t type;
	uint32_t op; /* tensor_ops.def; NONE for a leaf */
	uint32_t flags;
	uint32_t buffer; /* handle; 0 only in queries */
	uint64_t offset; /* of the data in the buffer */
	int64_t ne[WIRE_MAX_DIMS];
	uint64_t nb[WIRE_MAX_DIMS];
	int32_t params[WIRE_MAX_PARAMS];
	uint32_t src[WIRE_MAX_SRC];
	uint32_t view_src;
	uint32_t reserved;
	uint64_t view_offset;
	char name[WIRE_MAX_NAME]; /* some back ends look at it to find fusible patterns */
};
static_assert(sizeof(struct wire_tensor) == 272, "wire_tensor");
#define WIRE_TENSOR_WORDS ((uint32_t)(sizeof(struct wire_tensor) / 8))

/* SUPPORTS (value of the answer: 1 yes, bit 1: worth offloading) and ALLOC_SIZE (value: bytes): the
 * last of n_tensors (<= 1 + 2 * WIRE_MAX_SRC) is the one asked about,
 * the others are its sources; no buffers. */
struct wire_supports {
	uint32_t n_tensors;
	uint32_t reserved;
	/* struct wire_tensor[n_tensors] */
};
#define WIRE_MAX_QUERY_TENSORS (1 + 2 * WIRE_MAX_SRC)
#define WIRE_MAX_QUERY_TAIL    (WIRE_MAX_QUERY_TENSORS * sizeof(struct wire_tensor))

enum wire_use {
	WIRE_USE_MUL_MAT = 1 << 0, /* the program asked whether MUL_MAT works with it as src[0] */
	WIRE_USE_MUL_MAT_ID = 1 << 1,
	WIRE_USE_OTHER = 1 << 2,
};

/* Announces that [offset, ...) of @buffer is going to hold a weight of this shape, before its data
 * is sent; the executor may then keep it in the layout the device runs best. */
struct wire_weight {
	uint32_t buffer;
	uint32_t type;
	uint64_t offset;
	int64_t ne[WIRE_MAX_DIMS];
	uint32_t uses; /* enum wire_use bits */
	uint32_t reserved;
};

struct wire_graph_define { /* replaces a graph of the same handle */
	uint32_t graph;
	uint32_t n_tensors;
	/* struct wire_tensor[n_tensors]; those flagged NODE are computed in this order */
};

/* Changes 64-bit words of the tensors of a defined graph: @n_runs times a struct wire_run followed
 * by its words. */
struct wire_graph_patch {
	uint32_t graph;
	uint32_t n_runs;
};

struct wire_run {
	uint32_t tensor; /* index, from 0 */
	uint16_t first;  /* word of struct wire_tensor */
	uint16_t n_words;
	/* uint64_t[n_words] */
};
static_assert(sizeof(struct wire_run) == 8, "wire_run");

struct wire_graph_run {
	uint32_t graph;
	int32_t cpu; /* the CPU the program's thread ran on, -1 unknown; a hint */
};

struct wire_graph_free {
	uint32_t graph;
	uint32_t reserved;
};

enum gg_op {
#define OP(number, NAME, fixed, tail, answers) GG_OP_##NAME = number,
#include "api/ggml/ops.def"
#undef OP
};

#endif
