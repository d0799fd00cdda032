/* SPDX-License-Identifier: Apache-2.0
 *
 * The symbol table of the program the plugin was loaded into. */
#include <stddef.h>
#include <stdint.h>

#include "guest/ggml/program.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"ggml_version", "main"};
	uint64_t values[2];

	program_parse_symtab(data, size, names, 2, values);
	return 0;
}
