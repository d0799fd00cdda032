/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "bench/stats.h"

static void test_median_of_odd_and_even_counts(void **state)
{
	(void)state;
	assert_true(stats_of((const double[]){3, 1, 2}, 3).median == 2);
	assert_true(stats_of((const double[]){4, 1, 2, 3}, 4).median == 2.5);
	assert_true(stats_of((const double[]){7}, 1).median == 7);
}

static void test_spread(void **state)
{
	struct stats s = stats_of((const double[]){2, 4, 4, 4, 5, 5, 7, 9}, 8);

	(void)state;
	assert_true(s.min == 2 && s.max == 9);
	assert_true(fabs(s.deviation - 2.138) < 0.001);
	assert_true(stats_of((const double[]){7}, 1).deviation == 0);
}

static void test_ratio_is_taken_pair_by_pair(void **state)
{
	/* the second round was twice as slow on both sides: the ratio does not see it */
	struct stats s = stats_of_ratio((const double[]){99, 49.5}, (const double[]){100, 50}, 2);

	(void)state;
	assert_true(fabs(s.min - 0.99) < 1e-9 && fabs(s.max - 0.99) < 1e-9);
}

static void test_few_rounds_decide_only_when_they_agree(void **state)
{
	const double one[] = {1, 1, 1, 1, 1, 1, 1, 1};
	const double slow[] = {.9, .9, .9, .9, .9, 1.1, .9, .9};

	(void)state;
	assert_false(stats_ratio_decides(slow, one, 3, .97)); /* chance: 1 of 8 */
	assert_false(stats_ratio_decides(slow, one, 4, .97)); /* 1 of 16 */
	assert_true(stats_ratio_decides(slow, one, 5, .97));  /* 1 of 32 */
	assert_false(stats_ratio_decides(slow, one, 6, .97)); /* 7 of 64 */
	assert_false(stats_ratio_decides(slow, one, 7, .97)); /* 8 of 128 */
	assert_true(stats_ratio_decides(slow, one, 8, .97));  /* 9 of 256 */
	assert_true(stats_ratio_decides(one, one, 5, .97));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_median_of_odd_and_even_counts),
		cmocka_unit_test(test_spread),
		cmocka_unit_test(test_ratio_is_taken_pair_by_pair),
		cmocka_unit_test(test_few_rounds_decide_only_when_they_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
