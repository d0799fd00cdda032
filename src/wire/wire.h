/* SPDX-License-Identifier: Apache-2.0
 *
 * wire.h -- what travels between a program's plugin and the executor of a device, whichever API
 * they speak.
 *
 * All fields are little endian and fixed width.  A stream starts with one struct wire_hello to the
 * broker; after the welcome it carries frames: struct wire_frame, the fixed struct of its op, a
 * tail, and zero bytes up to a multiple of WIRE_ALIGN.  Commands are carried out in the order sent.
 * Most have no answer: a program queues any number of them and learns of a failure with the next
 * answer.  Answers come in the order of the commands that ask for one.
 *
 * The operations of core.def and mem.def mean the same for every API; an API's own (api/X/ops.def)
 * have numbers from WIRE_API_OPS on.  struct wire_api (api.h) has the tables of one API.
 *
 * Work that goes on after its command has been carried out can be given a handle.  A program that
 * asks for it (EVENT_WANT) is told once when that work is done: a struct wire_answer of op
 * WIRE_OP_EVENT, which comes at any time between two answers.
 *
 * Handles (buffers, shared memory, events, what an API has) are chosen by the plugin: a slot below
 * the table's limit in the low 20 bits, a generation above; 0 is "none".  The executor refuses a
 * slot in use and a generation that is not the slot's.
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
	WIRE_VERSION = 2,        /* a peer with another one is refused */

	WIRE_ALIGN = 8, /* frames start at multiples of this */
	WIRE_TOKEN_BYTES = 32,
	WIRE_MAX_NAME = 64,
	WIRE_MAX_DEVICES = 16,
	WIRE_CARD_BYTES = 32,

	WIRE_SLOT_BITS = 20,
	WIRE_MAX_SLOTS = 1 << WIRE_SLOT_BITS, /* of a kind, where an API says so */
	WIRE_MAX_SHM = 64,
	WIRE_MAX_EVENTS = 256, /* slots per session, and work that goes on at a time */

	WIRE_MEM_OPS = 16,          /* operations about memory begin here (mem.def) */
	WIRE_API_OPS = 64,          /* an API's own begin here */
	WIRE_MAX_OPS = 128,         /* and end here */
	WIRE_MAX_FIXED = 64,        /* fixed part of a command */
	WIRE_MAX_DATA = 4 << 20,    /* inline payload of one frame */
	WIRE_MAX_BODY = 33 << 20,   /* of any frame */
	WIRE_MAX_WELCOME = 4 << 10, /* an API's part of the welcome */
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

/* Each API has a number of its own, in api/X/X.h: ggml 1, null 2.  0: all of them, for the host's
 * own processes. */
enum { WIRE_API_ANY = 0 };

enum wire_want {
	WIRE_WANT_LIST = 1, /* the devices that @api reaches: wire_hello_answer + n_devices *
			     * wire_device; then end */
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
	uint16_t api;                /* the number of one */
	uint16_t api_version;        /* of the API's part of the protocol */
	uint32_t reserved[4];        /* 0 */
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
	WIRE_E_API,         /* the host has no such API, or another version of it */
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
	/* Each program gets an executor of its own. */
	WIRE_DEVICE_PER_PROGRAM = 1 << 2,
	WIRE_DEVICE_EXAMPLE = 1 << 3, /* of an API for tests: people are not shown it */
	WIRE_DEVICE_ALL = (1 << 4) - 1,
};

struct wire_device {
	uint32_t index;
	uint32_t flags; /* enum wire_device_flags */
	uint64_t memory_total;
	uint64_t memory_free;
	char name[WIRE_MAX_NAME]; /* as the API's library calls it outside: "CPU", "Vulkan0" */
	char description[128];    /* for people */
	/* What it is a way to: a PCI address, "cpu", or its own name.  Devices of one card share
	 * its memory and its time. */
	char card[WIRE_CARD_BYTES];
	uint16_t api; /* what reaches it */
	uint16_t api_version;
	uint32_t reserved;
	char api_name[16]; /* for people */
};
static_assert(sizeof(struct wire_device) == 272, "wire_device");

enum wire_welcome_flags {
	WIRE_WELCOME_SHM = 1 << 0,       /* WIRE_OP_SHM_ADD works on this transport */
	WIRE_WELCOME_REFERENCE = 1 << 1, /* the device computes on the host's CPU cores */
};

struct wire_welcome { /* executor -> program, first thing on the stream after the broker's answer */
	uint32_t magic;
	uint16_t version;
	uint16_t status;
	uint32_t flags;      /* enum wire_welcome_flags */
	uint32_t body_bytes; /* that follow: the API's own, see wire_api::welcome_bytes; 0 unless OK
			      */
	uint64_t alignment;
	uint64_t max_buffer;
	uint64_t memory_total;
	uint64_t memory_free;
};
static_assert(sizeof(struct wire_welcome) == 48, "wire_welcome");

/* ---- frames ---- */

struct wire_frame {
	uint16_t op;         /* core.def, mem.def, or the API's */
	uint16_t n_fds;      /* descriptors that came with the first byte of this frame: 0 or 1 */
	uint32_t body_bytes; /* fixed part + tail, before padding */
};
static_assert(sizeof(struct wire_frame) == 8, "wire_frame");

struct wire_answer {     /* executor -> program, for each op with answers = true */
	uint16_t op;     /* the one answered, or WIRE_OP_EVENT */
	uint16_t status; /* of this command; of an event: of the work */
	uint16_t failed; /* first failure (enum wire_status) of a command without an answer since
			  * the last answer; WIRE_OK if none */
	uint16_t reserved;
	uint64_t value;      /* of an event: its handle; else the operation's, 0 in core and mem */
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

struct wire_event { /* EVENT_WANT, EVENT_DROP */
	uint32_t event;
	uint32_t reserved;
};

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

enum wire_op_number {
#define OP(number, NAME, fixed, tail, answers) WIRE_OP_##NAME = number,
#include "wire/core.def"
#include "wire/mem.def"
#undef OP
	WIRE_OP_EVENT = 15, /* executor -> program only */
};

/* Index of @name in such a table, or -1. */
int wire_name_find(const char *const *table, int n, const char *name);

static inline bool wire_bit(const uint8_t *bits, uint32_t n)
{
	return bits[n / 8] >> (n % 8) & 1;
}

#endif
