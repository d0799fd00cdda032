/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of distributions, and what pillion-archive says of an image. */
#include <stdint.h>

#include "tree/archive.h"
#include "tree/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct archive_told told;
	struct manifest m;

	if (manifest_parse(&m, (const char *)data, size, "amd64", NULL) == 0) {
		(void)manifest_find(&m, "Ubuntu");
		manifest_finish(&m);
	}
	if (archive_told_parse((const char *)data, size, &told))
		archive_told_finish(&told);
	return 0;
}
