/* SPDX-License-Identifier: Apache-2.0
 *
 * trace.c -- see trace.h. */
#include "vmm/trace.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

static struct {
	bool enabled;
	unsigned long long start_ns;
} trace;

void trace_begin(void)
{
	trace.start_ns = (unsigned long long)clock_now_ns();
}

void trace_enable(unsigned long long start_ns)
{
	trace.enabled = true;
	if (start_ns)
		trace.start_ns = start_ns;
	trace_mark("main");
}

void trace_mark(const char *what)
{
	unsigned long long ns = (unsigned long long)clock_now_ns() - trace.start_ns;
	char line[80];
	int n;

	if (!trace.enabled)
		return;
	n = snprintf(line, sizeof(line), "boot: %llu.%03llu ms %s\n", ns / 1000000,
		     ns / 1000 % 1000, what);
	if (write(STDERR_FILENO, line, (size_t)n) < 0)
		trace.enabled = false;
}

void trace_guest_mark(unsigned value)
{
	char text[16];

	snprintf(text, sizeof(text), "mark %u", value & 0xff);
	trace_mark(text);
}
