/* SPDX-License-Identifier: Apache-2.0
 *
 * layers.h -- a container image, unpacked to a folder, becomes files below the current root
 * folder. */
#ifndef PIL_LAYERS_H
#define PIL_LAYERS_H

#include <stdio.h>

#include "archive/extract.h"
#include "archive/oci.h"

/* Reads the image in the folder @image_fd: an OCI layout, or what `docker save` packs (then without
 * index.json).  @tag: which one; NULL: the only one.  Each part is compared with its digest before
 * it is used. */
int layers_apply(int image_fd, const char *tag, struct extract_limits *limits,
		 struct oci_config *config, struct pil_err *err) PIL_MUST_CHECK;

/* Prints what the host should know of the image, as JSON: {"uid": 0, "env": [], "workdir": ""}.
 * The user is looked up in the tree's own /etc/passwd. */
void layers_print(FILE *out, const struct oci_config *config);

#endif
