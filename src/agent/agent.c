/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent.h"

#include <string.h>

/* The string at *@pos, which then points behind it; NULL when it is not terminated in time. */
static const char *next_string(const char **pos, const char *end)
{
	const char *s = *pos;
	const char *nul = s < end ? memchr(s, '\0', (size_t)(end - s)) : NULL;

	if (nul)
		*pos = nul + 1;
	return nul ? s : NULL;
}

static bool take_strings(const char **out, unsigned n, const char **pos, const char *end)
{
	for (unsigned i = 0; i < n; i++)
		if (!(out[i] = next_string(pos, end)))
			return false;
	out[n] = NULL;
	return true;
}

bool agent_start_parse(struct agent_start *start, const char *body, size_t len)
{
	if (len < sizeof(*start))
		return false;
	memcpy(start, body, sizeof(*start));
	/* Each string has a byte at least. */
	return start->version == AGENT_VERSION && start->strings_bytes <= AGENT_MAX_STRINGS &&
	       len - sizeof(*start) <= start->strings_bytes &&
	       (uint64_t)start->n_args + start->n_env + 2 <= start->strings_bytes;
}

bool agent_request_parse(struct agent_request *r, const char *body, size_t len,
			 const char **storage, size_t capacity)
{
	const char *pos = body + sizeof(r->start), *end = body + len;

	if (!agent_start_parse(&r->start, body, len) ||
	    len - sizeof(r->start) != r->start.strings_bytes ||
	    (size_t)r->start.n_args + r->start.n_env + 2 > capacity)
		return false;
	r->args = storage;
	r->env = storage + r->start.n_args + 1;
	r->user = next_string(&pos, end);
	r->cwd = r->user ? next_string(&pos, end) : NULL;
	return r->cwd && take_strings(r->args, r->start.n_args, &pos, end) &&
	       take_strings(r->env, r->start.n_env, &pos, end) && pos == end;
}
