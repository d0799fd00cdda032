/* SPDX-License-Identifier: Apache-2.0
 *
 * What an executor answers, read by the plugin's channel: after a good welcome the input is the
 * stream of answers to a fixed set of questions, of ggml or (bit 3 of the first byte) null. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/null/null.h"
#include "base/fd.h"
#include "guest/null/null_client.h"
#include "lib/fake_exec.h"
#include "link/channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ask(struct channel *chan)
{
	static const struct wire_empty none;
	struct wire_get get = {.buffer = 1, .bytes = 48};
	struct wire_get_2d rows = {.buffer = 1, .n_rows = 3, .row_bytes = 5, .stride = 9};
	struct wire_memory numbers;
	char bytes[48];
	struct channel_dest dest = {bytes, 1, sizeof(bytes), 0};
	struct channel_dest dest_rows = {bytes, 3, 5, 9};
	struct channel_dest dest_memory = {&numbers, 1, sizeof(numbers), 0};

	for (int i = 0; i < 4 && !chan->dead; i++) {
		chan->need = channel_queue(chan, WIRE_OP_GET, &get, NULL, 0);
		channel_expect(chan, WIRE_OP_GET, &dest, NULL);
		chan->need = channel_queue(chan, WIRE_OP_GET_2D, &rows, NULL, 0);
		channel_expect(chan, WIRE_OP_GET_2D, &dest_rows, NULL);
		channel_call(chan, WIRE_OP_MEMORY, &none, NULL, 0, &dest_memory, NULL);
		channel_call(chan, WIRE_OP_FENCE, &none, NULL, 0, NULL, NULL);
	}
}

/* The same of null: with events, in whichever order. */
static void ask_null(struct channel *chan)
{
	uint32_t buffer = mem_alloc(chan, 48), events[4];
	char bytes[48];

	for (int i = 0; i < 4; i++)
		events[i] = null_run(chan, buffer);
	mem_get(chan, buffer, 0, bytes, sizeof(bytes));
	for (int i = 4; i-- > 0;)
		channel_event_wait(chan, events[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool null = size && data[0] & 8;
	struct fake_welcome welcome;
	struct channel *chan = NULL;
	int pair[2];

	if (size > 16384 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return 0;
	/* an odd first byte: the welcome is fuzzed too */
	fake_exec_welcome(&welcome, size ? data[0] & 6 : 0);
	welcome.head.body_bytes = null ? 0 : sizeof(welcome.body);
	if (size && !(data[0] & 1) &&
	    pil_write_all(pair[0], &welcome, sizeof(welcome.head) + welcome.head.body_bytes))
		abort();
	if (size > 1 && pil_write_all(pair[0], data + 1, size - 1))
		abort();
	shutdown(pair[0], SHUT_WR);
	if (channel_create_fd(&chan, null ? &wire_api_null : &wire_api_ggml, pair[1], NULL) == 0)
		(null ? ask_null : ask)(chan);
	channel_destroy(chan);
	close(pair[0]);
	return 0;
}
