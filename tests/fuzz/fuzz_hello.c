/* SPDX-License-Identifier: Apache-2.0
 *
 * What a stranger may say to the broker, in pieces: the first byte of the input seeds their sizes.
 * Also the text of the device cache, which is a file of the user's. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "broker/devices.h"
#include "broker/hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void feed(const uint8_t *data, size_t size, uint32_t seed)
{
	enum hello_state state = HELLO_MORE;
	struct hello hello = {0};

	while (size && state == HELLO_MORE) {
		size_t room, n;
		void *into = hello_room(&hello, &room);

		assert(room > 0);
		seed = seed * 1103515245u + 12345u;
		n = 1 + (seed >> 16) % 64;
		n = n < room ? n : room;
		n = n < size ? n : size;
		memcpy(into, data, n);
		state = hello_received(&hello, n);
		data += n;
		size -= n;
	}
	assert(state < HELLO_NUM_STATES);
	if (state == HELLO_LIST || state == HELLO_OPEN)
		assert(hello.have == sizeof(hello.wire) && hello.wire.magic == WIRE_MAGIC &&
		       strlen(hello.wire.program) < sizeof(hello.wire.program));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_device devices[WIRE_MAX_DEVICES];
	_auto_free char *text = malloc(size + 1);

	if (!size || !text)
		return 0;
	feed(data + 1, size - 1, data[0]);
	memcpy(text, data, size);
	text[size] = '\0';
	assert(devices_parse(text, "key", devices) <= WIRE_MAX_DEVICES);
	return 0;
}
