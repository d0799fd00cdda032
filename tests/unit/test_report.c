/* SPDX-License-Identifier: Apache-2.0
 *
 * report.h: what people and scripts read of a measurement. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "bench/report.h"

static const struct bench_report report = {
	.model_type = "gemma3 270M Q4_K - Medium",
	.build_native = "ab12",
	.build_inside = "ab12",
	.model_bytes = 253113024,
	.model_params = 268098176,
	.n_rounds = 3,
	.n_tests = 2,
	.tests = {{"pp512", {500, 510, 490}, {495, 505, 480}},
		  {"tg128", {80, 40, 80}, {79.5, 39, 80}}},
	.load_native = {0.5, 0.5, 0.5},
	.load_inside = {0.6, 0.6, 0.7},
};
static const struct report_names names = {.device = "CPU",
					  .reference = true,
					  .machine = "debian",
					  .backend = "ns",
					  .model = "/m/g.gguf"};

typedef int print_fn(FILE *, const struct bench_report *, const struct report_names *);

static char *printed(const struct bench_report *r, print_fn *print)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	assert_int_equal(print(f, r, &names), 0);
	fclose(f);
	return text;
}

static void test_json_has_the_promised_members(void **state)
{
	char *text = printed(&report, report_print_json);
	json_t *root = json_loads(text, 0, NULL);
	const char *version, *device, *machine, *backend, *file, *test, *built[2];
	double median, min, max, native, inside, load_ratio;
	int reference;
	json_t *samples;

	(void)state;
	assert_non_null(root);
	assert_int_equal(
		json_unpack(root,
			    "{s:s, s:{s:s, s:b}, s:{s:s, s:s}, s:{s:s}, s:{s:s, s:s}, s:[{}, "
			    "{s:s, s:o, s:{s:F, s:F, s:F}}], s:{s:F, s:F, s:{s:F}}}",
			    "pillion", &version, "device", "name", &device, "reference", &reference,
			    "machine", "name", &machine, "backend", &backend, "model", "file",
			    &file, "builds", "native", &built[0], "inside", &built[1], "tests",
			    "name", &test, "native", &samples, "ratio", "median", &median, "min",
			    &min, "max", &max, "load_s", "native", &native, "inside", &inside,
			    "ratio", "median", &load_ratio),
		0);
	assert_string_equal(version, PILLION_VERSION);
	assert_string_equal(built[0], "ab12");
	assert_string_equal(built[1], "ab12");
	assert_true(reference);
	assert_string_equal(test, "tg128");
	assert_int_equal(json_array_size(samples), 3);
	assert_true(median > 0.9937 && median < 0.9938 && min > 0.97 && min < 0.98 && max == 1);
	assert_true(native == 0.5 && inside == 0.6 && load_ratio > 1.19 && load_ratio < 1.21);
	json_decref(root);
	free(text);
}

static void test_table_calls_the_host_cpu_the_reference_device(void **state)
{
	char *text = printed(&report, report_print_table);

	(void)state;
	assert_non_null(strstr(text, "reference device (host CPU)"));
	assert_non_null(strstr(text, "pp512"));
	assert_non_null(strstr(text, "0.994"));
	assert_non_null(strstr(text, "load"));
	assert_non_null(strstr(text, "verdict: passed"));
	free(text);
}

static void test_verdict_is_missed_when_one_test_is_slow(void **state)
{
	struct bench_report slow = report;

	(void)state;
	assert_true(report_passed(&report));
	for (int i = 0; i < 3; i++)
		slow.tests[1].inside[i] = slow.tests[1].native[i] * 0.96;
	assert_false(report_passed(&slow));
}

static void test_verdict_of_few_rounds_is_said_to_be_uncertain(void **state)
{
	struct bench_report sure = report;
	char *text = printed(&report, report_print_table);

	(void)state;
	assert_non_null(strstr(text, "note: not certain: 3 rounds of pp512 between "));
	assert_non_null(strstr(text, "-r 20"));
	free(text);

	sure.n_rounds = 5;
	for (int t = 0; t < sure.n_tests; t++)
		for (int i = 0; i < 5; i++)
			sure.tests[t].inside[i] = sure.tests[t].native[i] = 100;
	text = printed(&sure, report_print_table);
	assert_null(strstr(text, "note:"));
	free(text);
}

static void test_two_builds_are_told_apart(void **state)
{
	struct bench_report other = report;
	char *same = printed(&other, report_print_table), *different;

	(void)state;
	strcpy(other.build_inside, "b1");
	different = printed(&other, report_print_table);
	assert_null(strstr(same, "of build"));
	assert_non_null(strstr(different, "of build 'ab12' outside and of 'b1' inside"));
	free(same);
	free(different);
}

static void test_busy_host_gets_no_figure(void **state)
{
	struct bench_report busy = report;
	char *table, *text;
	json_t *root, *host;

	(void)state;
	busy.host = (struct bench_host){.busy = true, .n_dropped = 6, .elsewhere = 0.413};
	table = printed(&busy, report_print_table);
	text = printed(&busy, report_print_json);
	assert_non_null(strstr(table, "not measured: the machine was busy, 41 % of its CPU time "
				      "went elsewhere"));
	assert_non_null(strstr(table, "--even-if-busy"));
	assert_null(strstr(table, "verdict"));
	assert_null(strstr(table, "pp512"));
	root = json_loads(text, 0, NULL);
	host = json_object_get(root, "host");
	assert_true(json_is_true(json_object_get(host, "busy")));
	assert_int_equal(json_integer_value(json_object_get(host, "rounds_dropped")), 6);
	assert_null(json_object_get(root, "tests"));
	assert_null(json_object_get(root, "load_s"));
	json_decref(root);
	free(table);
	free(text);
}

static void test_rounds_that_were_disturbed_and_kept_give_no_verdict(void **state)
{
	struct bench_report kept = report;
	char *text;

	(void)state;
	kept.host = (struct bench_host){.n_kept = 2, .elsewhere = 0.2};
	text = printed(&kept, report_print_table);
	assert_non_null(strstr(text, "pp512"));
	assert_non_null(strstr(text, "verdict: none: the machine was busy in 2 of the rounds"));
	assert_null(strstr(text, "passed"));
	free(text);
}

static void test_what_else_the_host_did_is_said_beside_the_figures(void **state)
{
	struct bench_report quiet = report;
	char *text;

	(void)state;
	quiet.host = (struct bench_host){.n_dropped = 1,
					 .elsewhere = 0.004,
					 .min_bytes_per_s = 9e9,
					 .max_bytes_per_s = 1e10};
	text = printed(&quiet, report_print_table);
	assert_non_null(strstr(text, "host: 0.4 % of its CPU time went elsewhere, memory read at "
				     "9.0 to 10.0 GB/s, 1 disturbed round measured again"));
	assert_non_null(strstr(text, "verdict: passed"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_busy_host_gets_no_figure),
		cmocka_unit_test(test_rounds_that_were_disturbed_and_kept_give_no_verdict),
		cmocka_unit_test(test_what_else_the_host_did_is_said_beside_the_figures),
		cmocka_unit_test(test_two_builds_are_told_apart),
		cmocka_unit_test(test_json_has_the_promised_members),
		cmocka_unit_test(test_table_calls_the_host_cpu_the_reference_device),
		cmocka_unit_test(test_verdict_is_missed_when_one_test_is_slow),
		cmocka_unit_test(test_verdict_of_few_rounds_is_said_to_be_uncertain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
