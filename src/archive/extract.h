/* SPDX-License-Identifier: Apache-2.0
 *
 * extract.h -- a tar archive, plain or compressed by gzip, xz or zstd, becomes files below the
 * current root folder.
 *
 * The archive is not trusted: what leads out of the tree, owners that a tree cannot hold, device
 * nodes outside /dev, absurd sizes, and an archive that ends too early are errors with the name of
 * the file. */
#ifndef PIL_EXTRACT_H
#define PIL_EXTRACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

enum { EXTRACT_LAST_ID = 65535 };

struct extract_limits {
	uint64_t bytes; /* of all files together, holes not counted */
	uint64_t files;
};

/* One archive, or one layer of an image. */
enum extract_pass {
	EXTRACT_ALL,
	EXTRACT_WHITEOUTS, /* only removes what a layer hides of those below it */
	EXTRACT_FILES,     /* the files of a layer */
};

/* Reads the archive @fd (borrowed) from where it stands; counts down @limits.  -EBADMSG for what is
 * no archive or a broken one. */
int extract_run(int fd, enum extract_pass pass, struct extract_limits *limits,
		struct pil_err *err) PIL_MUST_CHECK;

/* Cleans @path into @out (at least strlen(@path) + 1 bytes): no leading "/" and "./", no empty or
 * "." steps.  "" is the root.  False: it has a ".." step, or is longer than a path may be. */
bool extract_clean_path(const char *path, char *out) PIL_MUST_CHECK;

#endif
