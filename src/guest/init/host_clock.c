/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: KVM's clock goes on as the host's hardware does.  It knows neither that the
 * host's wall clock was set, by its user, NTP or a suspend, nor that NTP has it go a little slower
 * or faster.  So the host says what time it is, and a clock that is wrong by more than messages can
 * be late is set.  A smaller error is left to whatever keeps the time in the distribution. */
#include "host_clock.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "log.h"

#define SECOND_NS    INT64_C(1000000000)
#define TOLERANCE_NS (SECOND_NS / 5)

int64_t host_clock_step_ns(int64_t own_ns, int64_t host_ns)
{
	int64_t step;

	if (host_ns <= 0 || __builtin_sub_overflow(host_ns, own_ns, &step))
		return 0;
	return step > TOLERANCE_NS || step < -TOLERANCE_NS ? step : 0;
}

static void follow(int64_t host_ns)
{
	struct timespec now = {0};
	int64_t step;

	clock_gettime(CLOCK_REALTIME, &now);
	step = host_clock_step_ns((int64_t)now.tv_sec * SECOND_NS + now.tv_nsec, host_ns);
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
	int64_t host_ns;

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	if (n == 0)
		return false;
	clock->have += (unsigned)n;
	if (clock->have < sizeof(clock->said))
		return true;
	clock->have = 0;
	memcpy(&host_ns, clock->said, sizeof(host_ns));
	follow(host_ns);
	return true;
}
