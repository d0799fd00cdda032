/* SPDX-License-Identifier: Apache-2.0
 *
 * wire.h -- what travels between a program's plugin and the executor of a device.
 *
 * All fields are little endian and fixed width.  A stream starts with one struct wire_hello to the
 * broker; after the welcome it carries frames: struct wire_frame, the fixed struct of its op
 * (ops.def), a tail, and zero bytes up to a multiple of WIRE_ALIGN.  Commands are carried out in
 * the order sent.  Most have no answer: a program queues any number of them and learns of a
 * failure with the next answer.  Answers come in the order of the commands that ask for one.
 *
 * Handles (buffers, graphs, shared memory) are chosen by the plugin: a slot below the table's
 * limit in the low 20 bits, a generation above; 0 is "none".  The executor refuses a slot in use
 * and a generation that is not the slot's.
 *
 * A frame that breaks a rule of this file ends the session; nothing else does. */
#ifndef PIL_WIRE_H
#define PIL_WIRE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the structs below are copied as they are, which needs a little-endian machine"
#endif

enum {
	WIRE_MAGIC = 0x4e4c4950, /* "PILN" */
	WIRE_VERSION = 1,        /* a peer with another one is refused */

	WIRE_ALIGN = 8, /* frames start at multiples of this */
	WIRE_TOKEN_BYTES = 32,
	WIRE_MAX_DIMS = 4,    /* GGML_MAX_DIMS */
	WIRE_MAX_SRC = 10,    /* GGML_MAX_SRC */
	WIRE_MAX_PARAMS = 16, /* 32-bit words; GGML_MAX_OP_PARAMS / 4 */
	WIRE_MAX_NAME = 64,   /* GGML_MAX_NAME */
	WIRE_MAX_TYPES = 64,
	WIRE_MAX_DEVICES = 16,
	WIRE_CARD_BYTES = 32,

	WIRE_MAX_BUFFERS = 4096, /* slots per session */
	WIRE_MAX_GRAPHS = 64,
	WIRE_MAX_SHM = 64,
	WIRE_MAX_TENSORS = 65536, /* in one graph */
	WIRE_SLOT_BITS = 20,

	WIRE_MAX_DATA = 4 << 20, /* inline payload of one frame */
	WIRE_MAX_GRAPH_TAIL = 32 << 20,
	WIRE_MAX_BODY = WIRE_MAX_GRAPH_TAIL + 4096,
};

static inline uint32_t wire_handle(uint32_t slot, uint32_t generation)
{
	return slot | (generation << WIRE_SLOT_BITS);
}

static inline uint32_t wire_slot(uint32_t handle)
{
	return handle & ((1u << WIRE_SLOT_BITS) - 1);
}

static inline uint32_t wire_padded(uint32_t len)
{
	return (len + WIRE_ALIGN - 1) & ~(uint32_t)(WIRE_ALIGN - 1);
}

/* ---- hello: program -> broker, once, before any frame ---- */

enum wire_want {
	WIRE_WANT_LIST =
		1, /* the answer is wire_hello_answer + n_devices * wire_device; then end */
	WIRE_WANT_OPEN =
		2, /* the answer is wire_hello_answer, and on success the stream now belongs
		    * to the executor of device @device, which sends struct wire_welcome */
};

struct wire_hello {
	uint32_t magic;
	uint16_t version;
	uint16_t want; /* enum wire_want */
	uint8_t token[WIRE_TOKEN_BYTES];
	uint32_t device;             /* index in the list, for WIRE_WANT_OPEN */
	char program[WIRE_MAX_NAME]; /* NUL-padded; shown to people, never trusted */
	uint32_t reserved[5];        /* 0 */
};
static_assert(sizeof(struct wire_hello) == 128, "wire_hello");

enum wire_status {
	WIRE_OK = 0,
	WIRE_E_VERSION,     /* other WIRE_VERSION */
	WIRE_E_TOKEN,       /* no machine has this token */
	WIRE_E_NO_DEVICE,   /* no such device index, or none at all */
	WIRE_E_EXECUTOR,    /* the executor could not be started, or went away */
	WIRE_E_BUSY,        /* too many sessions */
	WIRE_E_NO_MEMORY,   /* device memory or the machine's quota is used up */
	WIRE_E_FAILED,      /* the device reported a failure of a graph */
	WIRE_E_UNSUPPORTED, /* the device cannot do this */
	WIRE_E_INVALID,     /* a graph or request the executor refuses; the session goes on */
	WIRE_E_SETTINGS,    /* the machine's settings cannot be read */
	WIRE_E_NO_BROKER,   /* nobody is there who could give the device out */
	WIRE_NUM_STATUSES
};
extern const char *const wire_status_str[WIRE_NUM_STATUSES];

struct wire_hello_answer {
	uint32_t magic;
	uint16_t version;
	uint16_t status; /* enum wire_status */
	uint32_t n_devices;
	uint32_t reserved;
};
static_assert(sizeof(struct wire_hello_answer) == 16, "wire_hello_answer");

enum wire_device_flags {
	WIRE_DEVICE_REFERENCE = 1 << 0,  /* the host CPU, offered as the reference device */
	WIRE_DEVICE_INTEGRATED = 1 << 1, /* shares the host's memory */
};

struct wire_device {
	uint32_t index;
	uint32_t flags; /* enum wire_device_flags */
	uint64_t memory_total;
	uint64_t memory_free;
	char name[WIRE_MAX_NAME]; /* as ggml calls it outside: "CPU", "Vulkan0" */
	char description[128];    /* for people */
	/* What it is a way to: a PCI address, "cpu", or its own name.  Devices of one card share
	 * its memory and its time. */
	char card[WIRE_CARD_BYTES];
};
static_assert(sizeof(struct wire_device) == 248, "wire_device");

struct wire_type { /* how this executor's ggml lays out tensor type @type */
	uint32_t type;
	uint32_t block; /* elements */
	uint32_t bytes; /* per block */
	uint32_t reserved;
};

enum wire_welcome_flags {
	WIRE_WELCOME_PLAIN_SIZE = 1 << 0, /* alloc size is ggml_nbytes: do not ask */
	WIRE_WELCOME_SHM = 1 << 1,        /* WIRE_OP_SHM_ADD works on this transport */
	WIRE_WELCOME_REFERENCE = 1 << 2,  /* the device computes on the host's CPU cores */
};

struct wire_welcome { /* executor -> program, first thing on the stream after the broker's answer */
	uint32_t magic;
	uint16_t version;
	uint16_t status;
	uint32_t flags; /* enum wire_welcome_flags */
	uint32_t n_types;
	uint64_t alignment;
	uint64_t max_buffer;
	uint64_t memory_total;
	uint64_t memory_free;
	uint8_t ops[32];   /* bit n: tensor op n of api/ggml/tensor_ops.def is known and allowed */
	uint8_t unary[16]; /* likewise */
	uint8_t glu[16];
	struct wire_type types[WIRE_MAX_TYPES];
};
static_assert(sizeof(struct wire_welcome) == 48 + 64 + WIRE_MAX_TYPES * 16, "wire_welcome");

/* ---- frames ---- */

struct wire_frame {
	uint16_t op;         /* enum wire_op */
	uint16_t n_fds;      /* descriptors that came with the first byte of this frame: 0 or 1 */
	uint32_t body_bytes; /* fixed part + tail, before padding */
};
static_assert(sizeof(struct wire_frame) == 8, "wire_frame");

struct wire_answer {     /* executor -> program, for each op with answers = true */
	uint16_t op;     /* the one answered */
	uint16_t status; /* of this command */
	uint16_t failed; /* first failure (enum wire_status) of a command without an answer since
			  * the last answer; WIRE_OK if none */
	uint16_t reserved;
	uint64_t value;      /* SUPPORTS: 1 yes, bit 1: worth offloading; ALLOC_SIZE: bytes */
	uint32_t body_bytes; /* data that follows, not padded: GET, GET_2D, MEMORY */
	uint32_t device_us;  /* device time used since the last answer */
};
static_assert(sizeof(struct wire_answer) == 24, "wire_answer");

struct wire_empty {
	uint64_t reserved; /* 0 */
};

struct wire_memory { /* tail of the answer to MEMORY: what this machine may use, live */
	uint64_t free;
	uint64_t total;
};

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

/* SUPPORTS and ALLOC_SIZE: the last of n_tensors (<= 1 + 2 * WIRE_MAX_SRC) is the one asked about,
 * the others are its sources; no buffers. */
struct wire_supports {
	uint32_t n_tensors;
	uint32_t reserved;
	/* struct wire_tensor[n_tensors] */
};
#define WIRE_MAX_QUERY_TENSORS (1 + 2 * WIRE_MAX_SRC)
#define WIRE_MAX_QUERY_TAIL    (WIRE_MAX_QUERY_TENSORS * sizeof(struct wire_tensor))

struct wire_buffer_alloc {
	uint32_t buffer;
	uint32_t reserved;
	uint64_t bytes;
};

struct wire_buffer_free {
	uint32_t buffer;
	uint32_t reserved;
};

struct wire_buffer_clear {
	uint32_t buffer;
	uint32_t value; /* 0..255 */
};

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

struct wire_set {
	uint32_t buffer;
	uint32_t reserved;
	uint64_t offset;
	/* data */
};

struct wire_get {
	uint32_t buffer;
	uint32_t reserved;
	uint64_t offset;
	uint64_t bytes; /* <= WIRE_MAX_DATA */
};

struct wire_set_shm { /* the program leaves the memory alone until a later command is answered */
	uint32_t buffer;
	uint32_t shm;
	uint64_t offset;
	uint64_t shm_offset;
	uint64_t bytes;
};

struct wire_get_shm {
	uint32_t buffer;
	uint32_t shm;
	uint64_t offset;
	uint64_t shm_offset;
	uint64_t bytes;
};

struct wire_set_2d { /* n >= 1 rows of row_bytes >= 1 each, in the buffer stride bytes apart */
	uint32_t buffer;
	uint32_t n_rows;
	uint64_t offset;
	uint64_t row_bytes;
	uint64_t stride;
	/* n_rows * row_bytes of data */
};

struct wire_get_2d {
	uint32_t buffer;
	uint32_t n_rows;
	uint64_t offset;
	uint64_t row_bytes;
	uint64_t stride;
};

struct wire_fill {
	uint32_t buffer;
	uint32_t value; /* 0..255 */
	uint64_t offset;
	uint64_t bytes;
};

struct wire_copy { /* between two buffers of this session; may be the same, not overlapping */
	uint32_t src_buffer;
	uint32_t dst_buffer;
	uint64_t src_offset;
	uint64_t dst_offset;
	uint64_t bytes;
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

enum wire_shm_kind {
	WIRE_SHM_MEMORY = 0, /* a memfd, sealed against shrinking: written and read by both */
	WIRE_SHM_FILE = 1,   /* a regular file that holds weights: for SET_SHM only */
};

/* Comes with one descriptor, of at least @bytes. */
struct wire_shm_add {
	uint32_t shm;
	uint32_t kind; /* enum wire_shm_kind */
	uint64_t bytes;
};

struct wire_shm_drop {
	uint32_t shm;
	uint32_t reserved;
};

enum wire_op {
#define OP(number, NAME, name, fixed, tail, answers) WIRE_OP_##NAME = number,
#include "wire/ops.def"
#undef OP
	WIRE_NUM_OPS
};

struct wire_op_info {
	const char *name;
	uint32_t fixed_bytes;
	uint32_t max_tail_bytes;
	bool answers;
};
extern const struct wire_op_info wire_op_info[WIRE_NUM_OPS]; /* [0] is empty */

/* Does @frame obey ops.def: known op, body within its limits, no descriptors but with SHM_ADD? */
bool wire_frame_valid(const struct wire_frame *frame);

/* Index of @name in such a table, or -1. */
int wire_name_find(const char *const *table, int n, const char *name);

static inline bool wire_bit(const uint8_t *bits, uint32_t n)
{
	return bits[n / 8] >> (n % 8) & 1;
}

#endif
