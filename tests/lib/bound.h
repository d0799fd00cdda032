/* SPDX-License-Identifier: Apache-2.0
 *
 * bound.h -- bounds that are times, which grow with what this machine is slower than a quiet one.
 *
 * tests/run measures it (slowness.py) and tells by PILLION_SLOWNESS; without, it is 1. */
#ifndef PIL_TEST_BOUND_H
#define PIL_TEST_BOUND_H

#include <stdlib.h>

/* @ms of a quiet machine, in ms of this one. */
static inline int bound_ms(int ms)
{
	const char *told = getenv("PILLION_SLOWNESS");
	double times = told ? strtod(told, NULL) : 1;

	return (int)(ms * (times > 1 ? times : 1));
}

#endif
