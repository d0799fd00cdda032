/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: KVM's clock goes on as the host's hardware does.  It knows neither that the
 * host's wall clock was set, by its user, NTP or a suspend, nor that NTP has it go a little slower
 * or faster.  So the host says what time it is, twice within seconds and again every minute, and a
 * clock that is wrong by more than TOLERANCE_NS is set.  A smaller error is left to whatever keeps
 * the time in the distribution.
 *
 * A message that is late makes the host's clock seem slow.  So one that says that ours is slow is
 * right, but ours is set back only when two in a row say the same.  Of messages that have piled up
 * the last one counts. */
#include "guest/init/host_clock.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/log.h"

#define SECOND_NS    INT64_C(1000000000)
#define TOLERANCE_NS (SECOND_NS / 5)

int64_t host_clock_step_ns(struct host_clock *clock, int64_t own_ns, int64_t host_ns)
{
	int64_t before = clock->back_ns, step, change;

	clock->back_ns = 0;
	if (host_ns <= 0 || __builtin_sub_overflow(host_ns, own_ns, &step))
		return 0;
	if (step >= -TOLERANCE_NS)
		return step > TOLERANCE_NS ? step : 0;
	clock->back_ns = step;
	if (__builtin_sub_overflow(step, before, &change) || change > TOLERANCE_NS ||
	    change < -TOLERANCE_NS)
		return 0;
	clock->back_ns = 0;
	return step;
}

static void follow(struct host_clock *clock, int64_t host_ns)
{
	struct timespec now = {0};
	int64_t step;

	clock_gettime(CLOCK_REALTIME, &now);
	step = host_clock_step_ns(clock, (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec, host_ns);
	if (!step)
		return;
	now.tv_sec = (time_t)(host_ns / SECOND_NS);
	now.tv_nsec = (long)(host_ns % SECOND_NS);
	if (clock_settime(CLOCK_REALTIME, &now))
		log_warn("set the clock: %s", strerror(errno));
	else
		log_info("the clock was set by %+lld ms", (long long)(step / (SECOND_NS / 1000)));
}

bool host_clock_read(struct host_clock *clock, int fd)
{
	ssize_t n = read(fd, clock->said + clock->have, sizeof(clock->said) - clock->have);
	unsigned whole;
	int64_t host_ns;

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	if (n == 0)
		return false;
	clock->have += (unsigned)n;
	whole = clock->have - clock->have % sizeof(host_ns);
	if (!whole)
		return true;
	memcpy(&host_ns, clock->said + whole - sizeof(host_ns), sizeof(host_ns));
	clock->have -= whole;
	memmove(clock->said, clock->said + whole, clock->have);
	follow(clock, host_ns);
	return true;
}
