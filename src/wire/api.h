/* SPDX-License-Identifier: Apache-2.0
 *
 * api.h -- one API's part of the protocol, as both ends need it: its operations and limits. */
#ifndef PIL_WIRE_API_H
#define PIL_WIRE_API_H

#include "wire/wire.h"

struct wire_op {
	const char *name; /* NULL: there is no such operation */
	uint32_t fixed_bytes;
	uint32_t max_tail_bytes;
	bool answers;
};

struct wire_api {
	uint16_t id;      /* never that of another one, nor reused */
	uint16_t version; /* a peer with another one is refused */
	const char *name;
	const struct wire_op *ops; /* its own, the first is number WIRE_API_OPS */
	uint16_t n_ops;
	bool has_mem;           /* the operations of mem.def */
	bool has_events;        /* EVENT_WANT and EVENT_DROP */
	uint32_t welcome_bytes; /* of its part of the welcome */
	uint32_t max_buffers;   /* slots per session, at most WIRE_MAX_SLOTS */
};

/* An entry of wire_api::ops, made from a line of its ops.def. */
#define WIRE_OP_ENTRY(number, NAME, fixed, tail, answers)                                          \
	[(number)-WIRE_API_OPS] = {#NAME, sizeof(fixed), tail, answers},

/* What every entry must keep to. */
#define WIRE_OP_ASSERT(number, NAME, fixed, tail, answers)                                         \
	static_assert(sizeof(fixed) % WIRE_ALIGN == 0 && sizeof(fixed) <= WIRE_MAX_FIXED &&        \
			      sizeof(fixed) + (tail) <= WIRE_MAX_BODY && (number) < WIRE_MAX_OPS,  \
		      #NAME);

/* NULL: the API has no operation of this number. */
const struct wire_op *wire_op_find(const struct wire_api *api, uint16_t op);

/* The operation of @frame, if the frame obeys its entry: body within the limits, a descriptor with
 * SHM_ADD and with nothing else.  NULL: it does not, or there is none. */
const struct wire_op *wire_frame_op(const struct wire_api *api, const struct wire_frame *frame);

#endif
