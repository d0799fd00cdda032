/* SPDX-License-Identifier: Apache-2.0
 *
 * image_tool from|to|check FOLDER [LIMIT_BYTES] -- calls src/disk/image.c for test_image.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "disk/image.h"

int main(int argc, char **argv)
{
	uint64_t limit = argc > 3 ? strtoull(argv[3], NULL, 0) : (uint64_t)1 << 40;
	struct pil_err err = {0};
	int ret, fd;

	log_init("image_tool");
	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "from")) {
		ret = image_from_tree(argv[2], limit, &err);
	} else {
		_auto_free char *image = str_printf("%s/" IMAGE_NAME, argv[2]);

		fd = image_open(image, &err); /* locked until we end */
		ret = fd < 0 ? fd : 0;
		if (!ret && !strcmp(argv[1], "to"))
			ret = image_to_tree(argv[2], &err);
	}
	if (ret)
		fprintf(stderr, "%s\nhint: %s\n", err.msg, err.hint);
	return ret ? 1 : 0;
}
