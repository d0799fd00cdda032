/* SPDX-License-Identifier: Apache-2.0
 *
 * The JSON files of container images. */
#include <stdint.h>
#include <stdlib.h>

#include "archive/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct oci_image image;
	struct oci_config config;
	struct oci_blob blob;
	const char *text = (const char *)data;
	bool nested;

	if (oci_parse_index(text, size, size % 2 ? "t" : NULL, "amd64", &blob, &nested, NULL) ==
		    0 &&
	    blob.path[0] == '\0')
		abort();
	if (oci_parse_manifest(text, size, &image, NULL) == 0 && image.config.path[0] == '/')
		abort();
	if (oci_parse_docker(text, size, size % 2 ? "t" : NULL, &image, NULL) == 0 &&
	    image.config.path[0] == '/')
		abort();
	if (oci_parse_config(text, size, &config, NULL))
		(void)config.n_env;
	oci_config_finish(&config);
	return 0;
}
