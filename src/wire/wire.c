/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables of wire.h: what statuses mean, and the operations that every API has.  Then the checks
 * of a frame that need nothing but the frame and its API. */
#include "wire/wire.h"

#include <string.h>

#include "wire/api.h"

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
	[WIRE_E_API] = "the host has no executor for this interface, or for another version of it",
};

/* ---- operations ---- */

#define OP WIRE_OP_ASSERT
#include "wire/core.def"
#include "wire/mem.def"
#undef OP

static const struct wire_op neutral_ops[WIRE_API_OPS] = {
#define OP(number, NAME, fixed, tail, answers) [number] = {#NAME, sizeof(fixed), tail, answers},
#include "wire/core.def"
#include "wire/mem.def"
#undef OP
};

const struct wire_op *wire_op_find(const struct wire_api *api, uint16_t op)
{
	const struct wire_op *found;

	if (op >= WIRE_API_OPS)
		found = op - WIRE_API_OPS < api->n_ops ? &api->ops[op - WIRE_API_OPS] : NULL;
	else if (op >= WIRE_MEM_OPS)
		found = api->has_mem ? &neutral_ops[op] : NULL;
	else if (op == WIRE_OP_EVENT_WANT || op == WIRE_OP_EVENT_DROP)
		found = api->has_events ? &neutral_ops[op] : NULL;
	else
		found = &neutral_ops[op];
	return found && found->name ? found : NULL;
}

const struct wire_op *wire_frame_op(const struct wire_api *api, const struct wire_frame *frame)
{
	const struct wire_op *op = wire_op_find(api, frame->op);

	if (!op || frame->n_fds != (frame->op == WIRE_OP_SHM_ADD) ||
	    frame->body_bytes < op->fixed_bytes ||
	    frame->body_bytes - op->fixed_bytes > op->max_tail_bytes)
		return NULL;
	return op;
}

int wire_name_find(const char *const *table, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (table[i] && !strcmp(table[i], name))
			return i;
	return -1;
}
