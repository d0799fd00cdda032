/* SPDX-License-Identifier: Apache-2.0
 *
 * A machine's spec: what is read is written and read again as the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "machine/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct machine_spec spec, again;
	struct pil_err err = {0};
	char *text, *other;

	if (spec_parse(&spec, (const char *)data, size, &err))
		return 0;
	text = spec_write(&spec, &err);
	if (!text || spec_parse(&again, text, strlen(text), &err))
		abort();
	other = spec_write(&again, &err);
	if (!other || strcmp(text, other))
		abort();
	free(text);
	free(other);
	spec_finish(&spec);
	spec_finish(&again);
	return 0;
}
