/* SPDX-License-Identifier: Apache-2.0
 *
 * stats.h -- median and spread of a few measurements. */
#ifndef PIL_STATS_H
#define PIL_STATS_H

#include <stdbool.h>

#include "base/compiler.h"

enum { STATS_MAX = 64 };

struct stats {
	double median, min, max;
	double deviation; /* of the sample; 0 with one value */
};

/* @n is 1 to STATS_MAX. */
struct stats stats_of(const double *values, int n);

/* Of values[i] / base[i], so that what slows both of a pair down cancels. */
struct stats stats_of_ratio(const double *values, const double *base, int n);

/* Sign test: do so few of the ratios lie on the other side of @limit than the rest that chance
 * alone would do it in less than one of twenty cases? */
bool stats_ratio_decides(const double *values, const double *base, int n, double limit);

#endif
