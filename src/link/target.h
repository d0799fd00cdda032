/* SPDX-License-Identifier: Apache-2.0
 *
 * target.h -- where a program of a machine finds the broker, and as whom it asks. */
#ifndef PIL_TARGET_H
#define PIL_TARGET_H

#include "base/compiler.h"
#include "base/err.h"
#include "link/channel.h"

/* The machine's own, or what PILLION_BROKER and PILLION_TOKEN_FILE name.  0 or -errno with @err. */
int target_find(struct channel_target *target, const struct wire_api *api,
		struct pil_err *err) PIL_MUST_CHECK;

#endif
