/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables of wire.h: operations with their sizes and names, the names of statuses.  Then the
 * checks of a frame that need nothing but the frame. */
#include "wire/wire.h"

#include <string.h>

const char *const wire_status_str[WIRE_NUM_STATUSES] = {
	[WIRE_OK] = "ok",
	[WIRE_E_VERSION] = "the other end speaks another version of the protocol",
	[WIRE_E_TOKEN] = "the token is not one of a running machine",
	[WIRE_E_NO_DEVICE] = "there is no such device",
	[WIRE_E_EXECUTOR] = "the executor of the device is not running",
	[WIRE_E_BUSY] = "too many sessions",
	[WIRE_E_NO_MEMORY] = "out of device memory",
	[WIRE_E_FAILED] = "the device reported a failure",
	[WIRE_E_UNSUPPORTED] = "the device cannot do this",
	[WIRE_E_INVALID] = "the executor refused the request",
	[WIRE_E_SETTINGS] = "the settings of this machine cannot be read: broker.log says why",
	[WIRE_E_NO_BROKER] = "there is no broker on the host, or it does not answer",
};

const struct wire_op_info wire_op_info[WIRE_NUM_OPS] = {
#define OP(number, NAME, name, fixed, tail, answers)                                               \
	[number] = {#name, sizeof(fixed), tail, answers},
#include "wire/ops.def"
#undef OP
};

#define OP(number, NAME, name, fixed, tail, answers)                                               \
	static_assert(sizeof(fixed) % WIRE_ALIGN == 0 && sizeof(fixed) + (tail) <= WIRE_MAX_BODY,  \
		      #name);
#include "wire/ops.def"
#undef OP

bool wire_frame_valid(const struct wire_frame *frame)
{
	const struct wire_op_info *info;

	if (frame->op == 0 || frame->op >= WIRE_NUM_OPS)
		return false;
	info = &wire_op_info[frame->op];
	if (frame->n_fds != (frame->op == WIRE_OP_SHM_ADD))
		return false;
	return frame->body_bytes >= info->fixed_bytes &&
	       frame->body_bytes - info->fixed_bytes <= info->max_tail_bytes;
}

int wire_name_find(const char *const *table, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (table[i] && !strcmp(table[i], name))
			return i;
	return -1;
}
