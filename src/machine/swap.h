/* SPDX-License-Identifier: Apache-2.0
 *
 * swap.h -- the swap disk of a microVM: a sparse file that lasts as long as the machine runs. */
#ifndef PIL_SWAP_H
#define PIL_SWAP_H

#include <stdint.h>

#include "compiler.h"
#include "err.h"

/* Makes @path anew, @bytes long, with the signature that swapon() looks for. */
int swap_create(const char *path, uint64_t bytes, struct pil_err *err) PIL_MUST_CHECK;

#endif
