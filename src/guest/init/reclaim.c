/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: every PERIOD_MS we look how much the processors had to do.  After REST_MS in
 * which that was next to nothing, and be it that a server waits for somebody, the cache is dropped
 * at once (dropCache) or lowered by a small part each time, the oldest first, down to a floor
 * (gradual): what is used again soon is still there.  What is freed the balloon reports to the
 * host.
 *
 * The kernel does the gradual part on request, by the root cgroup's memory.reclaim.  It is to leave
 * the memory of programs alone (swappiness=0); kernels before 6.9 do not know how to, and are not
 * asked: there all of the cache is dropped after a long rest. */
#include "guest/init/reclaim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"

enum {
	PERIOD_MS = 10000,
	REST_MS = 60000,
	LONG_REST_MS = 600000,
	REST_PERCENT = 5, /* of one processor */
	FLOOR_MIB = 64,
	SMALLEST_STEP_MIB = 16,
	LARGEST_STEP_MIB = 256, /* it takes a while, and we are the first process */
};

bool reclaim_read_stat(const char *stat, uint64_t *busy, uint64_t *total)
{
	unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;

	if (sscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system,
		   &idle, &iowait, &irq, &softirq, &steal) != 8)
		return false;
	*busy = user + nice + system + iowait + irq +
		softirq; /* who waits for a disk needs cache */
	*total = *busy + idle + steal;
	return true;
}

/* Of "NAME:   123 kB" in @meminfo; 0: it is not there. */
static uint64_t field_bytes(const char *meminfo, const char *name)
{
	const char *at = strstr(meminfo, name);

	return at ? strtoull(at + strlen(name), NULL, 10) << 10 : 0;
}

uint64_t reclaim_step_bytes(const char *meminfo)
{
	const uint64_t mib = 1 << 20;
	uint64_t total = field_bytes(meminfo, "MemTotal:");
	uint64_t cached = field_bytes(meminfo, "\nCached:") + field_bytes(meminfo, "\nBuffers:");
	uint64_t shared = field_bytes(meminfo, "\nShmem:"); /* is in "Cached", and is no cache */
	uint64_t floor = total / 32 > FLOOR_MIB * mib ? total / 32 : FLOOR_MIB * mib, step;

	cached -= shared < cached ? shared : cached;
	if (cached <= floor)
		return 0;
	step = cached / 32;
	if (step < SMALLEST_STEP_MIB * mib)
		step = SMALLEST_STEP_MIB * mib;
	if (step > LARGEST_STEP_MIB * mib)
		step = LARGEST_STEP_MIB * mib;
	return step < cached - floor ? step : cached - floor;
}

/* All processors had next to nothing to do since we were here last. */
static bool rested(struct reclaim *r)
{
	_auto_free char *stat = NULL;
	long n_processors = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t busy, total, busy_before = r->busy, of_one;

	if (pil_read_file("/proc/stat", 1 << 20, &stat) < 0 ||
	    !reclaim_read_stat(stat, &busy, &total))
		return false;
	of_one = (total - r->total) / (n_processors > 0 ? (uint64_t)n_processors : 1);
	r->busy = busy;
	r->total = total;
	return (busy - busy_before) * 100 < of_one * REST_PERCENT;
}

static int write_to(const char *path, const char *text)
{
	_auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static void drop(struct reclaim *r)
{
	if (!r->dropped && write_to("/proc/sys/vm/drop_caches", "1"))
		log_dbg("drop_caches: %s", strerror(errno));
	r->dropped = true;
}

static void lower(struct reclaim *r)
{
	_auto_free char *meminfo = NULL;
	_auto_free char *request = NULL;
	uint64_t step;
	int ret;

	if (pil_read_file("/proc/meminfo", 1 << 16, &meminfo) < 0)
		return;
	step = reclaim_step_bytes(meminfo);
	if (step == 0)
		return;
	request = str_printf("%llu swappiness=0", (unsigned long long)step);
	ret = write_to("/sys/fs/cgroup/memory.reclaim", request);
	if (ret && ret != -EAGAIN &&
	    r->idle_ms >= LONG_REST_MS) /* EAGAIN: it was less than asked */
		drop(r);
}

static void look(struct loop_timer *timer)
{
	struct reclaim *r = container_of(timer, struct reclaim, timer);

	loop_timer_arm(r->loop, &r->timer, PERIOD_MS);
	if (!rested(r)) {
		r->idle_ms = 0;
		r->dropped = false;
		return;
	}
	r->idle_ms += PERIOD_MS;
	if (r->idle_ms < REST_MS)
		return;
	if (r->how == INIT_RECLAIM_DROP_CACHE)
		drop(r);
	else
		lower(r);
}

void reclaim_begin(struct reclaim *r, struct loop *loop, enum init_reclaim how)
{
	*r = (struct reclaim){.loop = loop, .timer.expired = look, .how = how};
	if (how != INIT_RECLAIM_DISABLED)
		loop_timer_arm(loop, &r->timer, PERIOD_MS);
}

void reclaim_rest(struct reclaim *r)
{
	if (r->how == INIT_RECLAIM_DROP_CACHE)
		r->idle_ms = REST_MS;
}
