/* SPDX-License-Identifier: Apache-2.0
 *
 * Median, extremes and deviation of a few samples, and a sign test: the median is what counts,
 * because one disturbed round must not decide. */
#include "bench/stats.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct stats stats_of(const double *values, int n)
{
	double sorted[STATS_MAX], mean = 0, sum = 0;
	struct stats s = {0};

	assert(n >= 1 && n <= STATS_MAX);
	memcpy(sorted, values, sizeof(*values) * (size_t)n);
	qsort(sorted, (size_t)n, sizeof(*sorted), by_value);
	s.min = sorted[0];
	s.max = sorted[n - 1];
	s.median = n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
	for (int i = 0; i < n; i++)
		mean += values[i] / n;
	for (int i = 0; i < n; i++)
		sum += (values[i] - mean) * (values[i] - mean);
	s.deviation = n > 1 ? sqrt(sum / (n - 1)) : 0;
	return s;
}

struct stats stats_of_ratio(const double *values, const double *base, int n)
{
	double ratio[STATS_MAX];

	assert(n >= 1 && n <= STATS_MAX);
	for (int i = 0; i < n; i++)
		ratio[i] = values[i] / base[i];
	return stats_of(ratio, n);
}

bool stats_ratio_decides(const double *values, const double *base, int n, double limit)
{
	double ways = 1, few = 0; /* n over i; the sum of them up to the smaller side */
	int below = 0, smaller;

	assert(n >= 1 && n <= STATS_MAX);
	for (int i = 0; i < n; i++)
		below += values[i] / base[i] < limit;
	smaller = below < n - below ? below : n - below;
	for (int i = 0; i <= smaller; i++) {
		few += ways;
		ways *= (double)(n - i) / (i + 1);
	}
	return few * pow(2, -n) < 0.05;
}
