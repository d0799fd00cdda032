/* SPDX-License-Identifier: Apache-2.0
 *
 * distro.json, snapshot.json, and what apt prints about its sources. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "config/registry.h"
#include "disk/copies.h"
#include "tree/mirror.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct snapshot snapshot = {0};
	struct distro distro;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	registry_parse((const char *)data, size, &distro);
	if (copies_parse((const char *)data, size, &snapshot) &&
	    (snapshot.version < 1 || snapshot.version > 2))
		abort();
	free(mirror_choose(text, "bookworm"));
	free(text);
	return 0;
}
