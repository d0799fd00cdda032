/* SPDX-License-Identifier: Apache-2.0
 *
 * null_client.h -- the program's half of null (api/null/null.h).
 *
 * Buffers are those of link/mem.h. */
#ifndef PIL_NULL_CLIENT_H
#define PIL_NULL_CLIENT_H

#include "link/mem.h"

/* A session on the machine's first device that null reaches. */
int null_open(struct channel **out, struct pil_err *err) PIL_MUST_CHECK;

/* Adds one to every byte.  The event of its end, for channel_event_wait(). */
uint32_t null_run(struct channel *chan, uint32_t buffer);

#endif
