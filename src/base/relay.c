/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: two ways, one for each direction, with a buffer each.  A way reads only
 * when its buffer is empty, so a slow reader stops the sender at the other end, and memory is
 * bounded.  The end of one way is passed on with shutdown(); the relay ends when both ways have
 * ended or a stream is broken. */
#include "base/relay.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

struct way { /* bytes [at, fill) of @buf have been read from @from and not written to @to */
	int from, to;
	size_t at, fill;
	bool ended;
	char buf[64 << 10];
};

/* False: the stream is broken. */
static bool move(struct way *w, short from_events, short to_events)
{
	ssize_t n;

	if (w->at == w->fill && !w->ended && from_events) {
		n = recv(w->from, w->buf, sizeof(w->buf), MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		w->at = 0;
		w->fill = n > 0 ? (size_t)n : 0;
		if (n == 0) {
			w->ended = true;
			shutdown(w->to, SHUT_WR);
		}
		to_events = POLLOUT; /* likely */
	}
	if (w->at < w->fill && to_events) {
		n = send(w->to, w->buf + w->at, w->fill - w->at, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return false;
		w->at += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static short wanted(const struct way *reading, const struct way *writing)
{
	return (short)((reading->at == reading->fill && !reading->ended ? POLLIN : 0) |
		       (writing->at < writing->fill ? POLLOUT : 0));
}

void relay_run(int a, int b)
{
	static struct way ways[2]; /* large; there is one relay in a process */
	struct way *there = &ways[0], *back = &ways[1];

	there->from = back->to = a;
	there->to = back->from = b;
	while (!there->ended || !back->ended) {
		struct pollfd p[] = {{.fd = a, .events = wanted(there, back)},
				     {.fd = b, .events = wanted(back, there)}};

		if (!p[0].events) /* an end that is known would wake us for ever */
			p[0].fd = -1;
		if (!p[1].events)
			p[1].fd = -1;
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		if (!move(there, p[0].revents, p[1].revents) ||
		    !move(back, p[1].revents, p[0].revents))
			return;
	}
}
