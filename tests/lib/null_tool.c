/* SPDX-License-Identifier: Apache-2.0
 *
 * null_tool ROUNDS [BYTES] -- a program that uses null: sets a buffer, lets the device add one to
 * every byte ROUNDS times, and compares.  Prints "ready" when it has a session, and what it found.
 * 0: all of it was right; 2: no session; 3: the device went away, or refused; 4: other bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "guest/null/null_client.h"

enum { IN_FLIGHT = 16 };

/* Keeps some runs under way, and waits for the oldest. */
static enum wire_status run(struct channel *chan, uint32_t buffer, long rounds)
{
	uint32_t events[IN_FLIGHT];
	enum wire_status status = WIRE_OK;

	for (long i = 0; i < rounds + IN_FLIGHT && status == WIRE_OK; i++) {
		uint32_t *event = &events[i % IN_FLIGHT];

		if (i >= IN_FLIGHT && i - IN_FLIGHT < rounds)
			status = channel_event_wait(chan, *event);
		*event = i < rounds ? null_run(chan, buffer) : 0;
	}
	return status;
}

int main(int argc, char **argv)
{
	long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1;
	uint32_t bytes = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 4096;
	uint8_t *data = calloc(1, bytes);
	struct pil_err err = {0};
	struct channel *chan;
	uint32_t buffer;

	log_init("null_tool");
	if (!data || null_open(&chan, &err)) {
		fprintf(stderr, "%s\n", err.msg);
		return 2;
	}
	puts("ready");
	fflush(stdout);
	data[0] = 200;
	buffer = mem_alloc(chan, bytes);
	mem_set(chan, buffer, 0, data, bytes);
	if (!buffer || run(chan, buffer, rounds) != WIRE_OK ||
	    mem_get(chan, buffer, 0, data, bytes) != WIRE_OK)
		return 3;
	for (uint32_t i = 0; i < bytes; i++)
		if (data[i] != (uint8_t)(rounds + (i ? 0 : 200)))
			return 4;
	printf("%ld rounds\n", rounds);
	channel_destroy(chan);
	free(data);
	return 0;
}
