/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_file.h -- the memory of a guest as a file, for other processes to map. */
#ifndef PIL_MEMORY_FILE_H
#define PIL_MEMORY_FILE_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

enum { MEMORY_HUGE_BYTES = 2 << 20 };

/* Makes a file of @bytes zeroes that take no memory yet.  The caller owns what is returned; -errno.
 * Huge pages take CAP_SYS_ADMIN over the mount namespace, see the top of memory_file.c. */
int memory_file_create(uint64_t bytes, struct pil_err *err) PIL_MUST_CHECK;

#endif
