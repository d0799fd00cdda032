/* SPDX-License-Identifier: Apache-2.0
 *
 * Doubling pauses: for parts of machines and executors that are started again, and for programs
 * that wait after what they did.  The pause is computed from the number of failures each time, so
 * there is no state that a longest pause or a long row could overflow. */
#include "base/backoff.h"

static int64_t pause_ms(const struct backoff_rule *rule, unsigned n)
{
	int64_t ms = rule->first_ms;

	if (n <= rule->free)
		return 0;
	for (n -= rule->free; n > 1 && ms < rule->longest_ms; n--)
		ms *= 2;
	return ms < rule->longest_ms ? ms : rule->longest_ms;
}

void backoff_note(struct backoff *b, const struct backoff_rule *rule, int64_t now_ms)
{
	if (b->n < UINT32_MAX)
		b->n++;
	b->due_ms = now_ms + pause_ms(rule, b->n);
}

void backoff_reset(struct backoff *b)
{
	*b = (struct backoff){0};
}

bool backoff_due(const struct backoff *b, int64_t now_ms)
{
	return !b->n || now_ms >= b->due_ms;
}
