/* SPDX-License-Identifier: Apache-2.0
 *
 * When a part of a machine is started again.  Each start counts as a failure of the one before, so
 * the pause between starts doubles; a part that ran for minutes begins anew. */
#include "machine/respawn.h"

static const struct backoff_rule rule = {.first_ms = 2000, .longest_ms = 60000};

enum { CALM_MS = 300000 };

bool respawn_due(struct respawn *r, int64_t now_ms)
{
	if (!backoff_due(&r->pause, now_ms))
		return false;
	if (now_ms - r->last_ms >= CALM_MS)
		backoff_reset(&r->pause);
	backoff_note(&r->pause, &rule, now_ms);
	r->last_ms = now_ms;
	return true;
}
