/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/respawn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_what_ended_once_is_started_at_once(void **state)
{
	struct respawn r = {0};

	(void)state;
	assert_true(respawn_due(&r, 0));
	assert_false(respawn_due(&r, 0));
}

/* Each second for an hour: never given up, and no more than once a minute in the end. */
static void test_what_keeps_ending_is_started_less_and_less_often(void **state)
{
	struct respawn r = {0};
	int early = 0, late = 0;

	(void)state;
	for (int s = 0; s < 3600; s++)
		if (respawn_due(&r, 1000 * s))
			*(s < 60 ? &early : &late) += 1;
	assert_in_range(early, 4, 8);
	assert_in_range(late, 55, 62);
}

static void test_after_a_calm_time_it_is_quick_again(void **state)
{
	struct respawn r = {0};
	int64_t now = 0;

	(void)state;
	for (int i = 0; i < 20; i++, now += 60000)
		assert_true(respawn_due(&r, now));
	now += 600000;
	assert_true(respawn_due(&r, now));
	assert_true(respawn_due(&r, now + 2000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_ended_once_is_started_at_once),
		cmocka_unit_test(test_what_keeps_ending_is_started_less_and_less_often),
		cmocka_unit_test(test_after_a_calm_time_it_is_quick_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
