/* SPDX-License-Identifier: Apache-2.0
 *
 * swap.h -- the swap disk of a microVM: a sparse file without a name, so that the host has its
 * space back when the last who holds it ends, in whatever way. */
#ifndef PIL_SWAP_H
#define PIL_SWAP_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

/* Makes one in folder @dir, @bytes long, with the signature that swapon() looks for.  Returns its
 * descriptor. */
int swap_create(const char *dir, uint64_t bytes, struct pil_err *err) PIL_MUST_CHECK;

#endif
