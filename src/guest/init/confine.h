/* SPDX-License-Identifier: Apache-2.0
 *
 * confine.h -- what pillion-init of a sandbox leaves behind before it serves anybody. */
#ifndef PIL_CONFINE_H
#define PIL_CONFINE_H

#include "base/err.h"

/* Enters the user namespace of the guest, below the one that made the mounts, with a mount,
 * network, IPC, host name namespace that belong to it.  The ids stay the same.  0 or -errno with
 * @err; the process must end then. */
int confine_enter(struct pil_err *err) PIL_MUST_CHECK;

#endif
