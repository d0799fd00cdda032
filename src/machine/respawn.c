/* SPDX-License-Identifier: Apache-2.0 */
#include "respawn.h"

enum { FIRST_WAIT_MS = 2000, LONGEST_WAIT_MS = 60000, CALM_MS = 300000 };

bool respawn_due(struct respawn *r, int64_t now_ms)
{
	int64_t passed = now_ms - r->last_ms;

	if (r->wait_ms && passed < r->wait_ms)
		return false;
	if (!r->wait_ms || passed >= CALM_MS)
		r->wait_ms = FIRST_WAIT_MS;
	else if (r->wait_ms < LONGEST_WAIT_MS / 2)
		r->wait_ms *= 2;
	else
		r->wait_ms = LONGEST_WAIT_MS;
	r->last_ms = now_ms;
	return true;
}
