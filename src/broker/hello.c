/* SPDX-License-Identifier: Apache-2.0
 *
 * Decides as early as it can: a wrong magic number after four bytes, another version after six.
 * So a stranger cannot keep a descriptor by sending slowly what is no hello. */
#include "broker/hello.h"

#include "base/compiler.h"

void *hello_room(struct hello *hello, size_t *len)
{
	*len = sizeof(hello->wire) - hello->have;
	return (char *)&hello->wire + hello->have;
}

enum hello_state hello_received(struct hello *hello, size_t len)
{
	struct wire_hello *w = &hello->wire;

	if (len > sizeof(*w) - hello->have)
		return HELLO_BAD;
	hello->have += len;
	if (hello->have >= offsetof(struct wire_hello, version) && w->magic != WIRE_MAGIC)
		return HELLO_BAD;
	if (hello->have >= offsetof(struct wire_hello, want) && w->version != WIRE_VERSION)
		return HELLO_OTHER; /* whose hello may be longer or shorter: do not wait for it */
	if (hello->have < sizeof(*w))
		return HELLO_MORE;
	w->program[sizeof(w->program) - 1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(w->reserved); i++)
		if (w->reserved[i])
			return HELLO_BAD;
	if (w->api == WIRE_API_ANY)
		return HELLO_BAD;
	if (w->want == WIRE_WANT_LIST)
		return HELLO_LIST;
	return w->want == WIRE_WANT_OPEN ? HELLO_OPEN : HELLO_BAD;
}
