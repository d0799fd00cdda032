/* SPDX-License-Identifier: Apache-2.0
 *
 * copy.h -- copies of trees and disks: shared blocks where the file system can (reflink), else all
 * of it; holes stay holes. */
#ifndef PIL_COPY_H
#define PIL_COPY_H

#include "base/compiler.h"
#include "base/err.h"

/* Makes the new folder @to of the tree @from, with owners, modes, times, links, holes and extended
 * attributes.  On failure what is left of it is the caller's. */
int copy_tree(const char *from, const char *to, struct pil_err *err) PIL_MUST_CHECK;

/* The same of a disk, which belongs to uid 0 of the namespace: programs that look through it run in
 * there. */
int copy_disk(const char *from, const char *to, struct pil_err *err) PIL_MUST_CHECK;

/* Makes the new file @to of file @from, which nobody writes to meanwhile. */
int copy_file(const char *from, const char *to, struct pil_err *err) PIL_MUST_CHECK;

#endif
