/* SPDX-License-Identifier: Apache-2.0
 *
 * null_client.c -- see null_client.h. */
#include "guest/null/null_client.h"

#include <errno.h>

#include "api/null/null.h"
#include "link/target.h"

int null_open(struct channel **out, struct pil_err *err)
{
	struct channel_target target = {0};
	struct wire_device device;
	uint32_t n = 0;
	int ret = target_find(&target, &wire_api_null, err);

	if (!ret)
		ret = channel_list(&target, &device, 1, &n, err);
	if (!ret && !n)
		ret = pil_err_say(err, ENODEV, "the host offers no device for null");
	return ret ? ret : channel_create(out, &target, device.index, err);
}

uint32_t null_run(struct channel *chan, uint32_t buffer)
{
	struct null_run c = {.buffer = buffer, .event = channel_event_new(chan)};

	channel_queue(chan, NULL_OP_RUN, &c, NULL, 0);
	channel_event_want(chan, c.event);
	return c.event;
}
