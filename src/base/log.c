/* SPDX-License-Identifier: Apache-2.0
 *
 * The level and the name of the program are set once, before there are threads.  A line is put
 * together on the stack and written with one write(), so lines of several threads do not mix. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

static const char *const level_str[] = {[LOG_LEVEL_ERR] = "err",
					[LOG_LEVEL_WARN] = "warn",
					[LOG_LEVEL_INFO] = "info",
					[LOG_LEVEL_DBG] = "dbg"};
_Static_assert(ARRAY_SIZE(level_str) == LOG_NUM_LEVELS, "level_str");

static const char *log_program = "pillion";
static enum log_level log_threshold = LOG_LEVEL_WARN;

void log_init(const char *program)
{
	const char *want = getenv("PILLION_LOG");

	log_program = program;
	for (int i = 0; want && i < LOG_NUM_LEVELS; i++)
		if (!strcmp(want, level_str[i]))
			log_threshold = (enum log_level)i;
}

bool log_enabled(enum log_level level)
{
	return level <= log_threshold;
}

/* #syscalls vcpu disk: write */
void log_write(enum log_level level, const char *fmt, ...)
{
	int saved = errno;
	char line[1024];
	va_list ap;
	int len, n;

	if (level > log_threshold)
		return;
	len = snprintf(line, sizeof(line), "%s: %s: ", log_program, level_str[level]);
	va_start(ap, fmt);
	n = vsnprintf(line + len, sizeof(line) - (size_t)len - 1, fmt, ap);
	va_end(ap);
	if (n > 0)
		len += n;
	if ((size_t)len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	line[len++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)len) < 0) {
		/* nowhere left to say so */
	}
	errno = saved;
}

bool log_allowed(struct log_limit *limit)
{
	int64_t now = clock_now_ms();

	if (limit->last_ms && now - limit->last_ms < 1000) {
		limit->held_back++;
		return false;
	}
	limit->last_ms = now;
	limit->held_back = 0;
	return true;
}
