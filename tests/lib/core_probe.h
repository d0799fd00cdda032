/* SPDX-License-Identifier: Apache-2.0
 *
 * core_probe.h -- how much slower this core is now than the one that the table of op_cost.c was
 * measured on. */
#ifndef PIL_TEST_CORE_PROBE_H
#define PIL_TEST_CORE_PROBE_H

/* Takes some 6 ms of a quiet machine.  Between 1 and CORE_PROBE_MOST.  Not for several threads. */
double core_probe_slowness(void);

enum { CORE_PROBE_MOST = 6 };

#endif
