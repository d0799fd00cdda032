/* SPDX-License-Identifier: Apache-2.0
 *
 * cover.h -- what programs in a sandbox do not see of /proc and /sys. */
#ifndef PIL_COVER_H
#define PIL_COVER_H

#include "base/err.h"

/* To be called in the namespace that owns the mounts.  0 or -errno. */
int cover_kernel_files(struct pil_err *err) PIL_MUST_CHECK;

#endif
