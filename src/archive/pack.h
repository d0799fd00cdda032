/* SPDX-License-Identifier: Apache-2.0
 *
 * pack.h -- a tree becomes a tar archive (pax), with owners, modes, times, hard links, holes, ACLs,
 * capabilities and other extended attributes. */
#ifndef PIL_PACK_H
#define PIL_PACK_H

#include "base/compiler.h"
#include "base/err.h"

/* Writes all of the folder @tree to @fd.  @filter: "none", "gzip", "xz" or "zstd". */
int pack_run(const char *tree, int fd, const char *filter, struct pil_err *err) PIL_MUST_CHECK;

#endif
