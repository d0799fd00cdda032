/* SPDX-License-Identifier: Apache-2.0
 *
 * The start request a client sends to the agent in a machine. */
#include <stdlib.h>
#include <string.h>

#include "agent/agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *storage[64];
	struct agent_request r;

	if (agent_request_parse(&r, (const char *)data, size, storage, 64)) {
		size_t total = strlen(r.user) + strlen(r.cwd);

		for (const char **a = r.args; *a; a++)
			total += strlen(*a);
		for (const char **e = r.env; *e; e++)
			total += strlen(*e);
		if (total > size)
			abort();
	}
	return 0;
}
