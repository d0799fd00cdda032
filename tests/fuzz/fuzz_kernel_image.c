/* SPDX-License-Identifier: Apache-2.0
 *
 * A file that claims to be a distribution's vmlinuz. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kit/kernel_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pil_err err = {0};
	uint8_t *elf = NULL;
	size_t elf_bytes = 0;
	char version[64];

	if (kernel_image_extract(data, size, &elf, &elf_bytes, &err) == 0 &&
	    (elf_bytes < 4 || memcmp(elf, "\177ELF", 4) != 0))
		abort();
	if (kernel_image_version(data, size, version, sizeof(version)) &&
	    strlen(version) >= sizeof(version))
		abort();
	free(elf);
	return 0;
}
