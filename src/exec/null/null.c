/* SPDX-License-Identifier: Apache-2.0
 *
 * The executor's half of null: buffers of the host's memory, and a command that is posted.
 *
 * RUN computes in the session's worker thread.  Commands about memory wait for what was posted, so
 * the worker has the buffers to itself. */
#include "exec/null/null.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/null/null.h"
#include "exec/hostmem.h"
#include "exec/session.h"

struct null_session {
	struct hostmem mem; /* first: see hostmem_ops */
	struct session *s;
};

static int load(void **host, const struct exec_opts *opts, struct pil_err *err)
{
	(void)opts;
	(void)err;
	*host = NULL; /* there is no library */
	return 0;
}

static int devices(void *host, struct wire_device *out, int max)
{
	(void)host;
	if (max < 1)
		return 0;
	*out = (struct wire_device){.flags = WIRE_DEVICE_REFERENCE, .name = "null"};
	snprintf(out->description, sizeof(out->description), "adds one to every byte");
	hostmem_memory(NULL, &out->memory_free, &out->memory_total);
	return 1;
}

static int open_device(void **dev, void *host, const char *name, struct card *card,
		       struct pil_err *err)
{
	(void)host;
	*dev = NULL;
	if (strcmp(name, "null"))
		return pil_err_say(err, ENODEV, "open device '%s': null has only 'null'", name);
	card_serve(card, hostmem_memory, NULL, true);
	return 0;
}

static enum wire_status begin(void **state, struct session *s, void *dev)
{
	struct null_session *n = calloc(1, sizeof(*n));

	(void)dev;
	if (!n)
		return WIRE_E_NO_MEMORY;
	n->s = s;
	hostmem_init(&n->mem, s->account, wire_api_null.max_buffers, NULL_MAX_BUFFER);
	*state = n;
	return WIRE_OK;
}

static void welcome(void *state, struct wire_welcome *w, void *body)
{
	(void)state;
	(void)body;
	w->alignment = 8;
	w->max_buffer = NULL_MAX_BUFFER;
}

static enum wire_status add_one(void *state, uint64_t handle)
{
	uint64_t bytes;
	uint8_t *data = hostmem_find(state, (uint32_t)handle, &bytes);

	for (uint64_t i = 0; i < bytes; i++)
		data[i]++;
	return WIRE_OK;
}

static int command(void *state, const struct wire_frame *frame, const void *fixed,
		   struct reply *reply)
{
	struct null_session *n = state;
	const struct null_run *run = fixed;
	uint64_t bytes;

	(void)reply;
	if (frame->op != NULL_OP_RUN || !hostmem_find(&n->mem, run->buffer, &bytes))
		return -EPROTO;
	return work_post(n->s, run->event, add_one, run->buffer);
}

static void end(void *state)
{
	struct null_session *n = state;

	hostmem_finish(&n->mem);
	free(n);
}

const struct exec_api exec_api_null = {
	.wire = &wire_api_null,
	.per_program = true,
	.example = true,
	.load = load,
	.devices = devices,
	.open = open_device,
	.mem = &hostmem_ops,
	.begin = begin,
	.welcome = welcome,
	.command = command,
	.end = end,
};
