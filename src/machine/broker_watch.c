/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a supervisor holds a connection to the broker and asks it for a sign of
 * life at each tick.  When the connection ends it starts a broker, less and less often.  When
 * several questions in a row stay unanswered the broker is stuck; it is ended, and the next tick
 * starts another.  Nothing here waits. */
#include "machine/broker_watch.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/proc.h"
#include "broker/broker.h"
#include "broker/host.h"

enum { HUNG_TICKS = 4, START_MS = 60000 };

/* Reads what it has said; the connection goes when the broker has gone. */
static void hear(struct broker_watch *w)
{
	struct host_answer a;
	ssize_t n;

	while (w->fd >= 0 && (n = recv(w->fd, &a, sizeof(a), MSG_DONTWAIT)) != -1) {
		w->unheard = 0;
		if (n == 0)
			pil_close_p(&w->fd);
	}
	if (w->fd >= 0 && errno != EAGAIN && errno != EINTR)
		pil_close_p(&w->fd);
}

/* True: one is being started. */
static bool is_starting(struct broker_watch *w)
{
	int status;

	if (w->starting <= 0)
		return false;
	status = proc_wait(w->starting, 0);
	if (status == -ETIMEDOUT && loop_left_ms(w->due_ms))
		return true;
	if (status == -ETIMEDOUT)
		proc_stop(w->starting, 0);
	if (status)
		log_warn("no devices: the broker did not start; broker.log says why");
	w->starting = 0;
	return false;
}

static void start(struct broker_watch *w, const struct state_dirs *dirs)
{
	struct pil_err err = {0};

	if (!respawn_due(&w->again, clock_now_ms()))
		return;
	w->starting = broker_spawn(dirs, &err);
	w->due_ms = clock_now_ms() + START_MS;
	if (w->starting > 0)
		return;
	log_warn("%s", err.msg);
	w->starting = 0;
}

void broker_watch_tend(struct broker_watch *w, const struct state_dirs *dirs, bool tick)
{
	const struct host_request ping = {.kind = HOST_PING};
	bool starting = is_starting(w);

	if (w->fd >= 0)
		hear(w);
	if (w->fd >= 0 && !tick)
		return;
	if (w->fd >= 0 && w->unheard >= HUNG_TICKS && broker_end_hung(dirs, w->fd))
		pil_close_p(&w->fd);
	if (w->fd < 0) {
		w->unheard = 0;
		w->fd = broker_connect(dirs);
	}
	if (w->fd < 0) {
		w->fd = -1;
		if (!starting)
			start(w, dirs);
		return;
	}
	if (w->unheard++ == 0 && send(w->fd, &ping, sizeof(ping), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		log_dbg("the broker takes no question");
}

void broker_watch_finish(struct broker_watch *w)
{
	if (w->starting > 0)
		proc_stop(w->starting, 0);
	pil_close_p(&w->fd);
	w->starting = 0;
}
