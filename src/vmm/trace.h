/* SPDX-License-Identifier: Apache-2.0
 *
 * trace.h -- the boot timer: what a start spends its time on.
 *
 * Lines on standard error, "boot: 12.345 ms kernel entry", counted from the exec of this program.
 */
#ifndef PIL_TRACE_H
#define PIL_TRACE_H

#include <stdbool.h>

/* Remembers now; call it first thing in main(). */
void trace_begin(void);
/* Prints marks from here on.  @start_ns: CLOCK_MONOTONIC when the caller executed us; 0: unknown,
 * the begin of main() counts. */
void trace_enable(unsigned long long start_ns);
/* Any thread; prints nothing unless enabled. */
void trace_mark(const char *what);
/* The guest asks for a mark by a register of its own. */
void trace_guest_mark(unsigned value);

#endif
