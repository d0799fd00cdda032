/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "bench/llama_json.h"

#define TEST_ON(backends, gpus, p, n, ts)                                                          \
	"{\"gpu_info\":\"" gpus "\",\"backends\":\"" backends "\",\"n_prompt\":" p ",\"n_gen\":" n \
	",\"model_size\":16152192,\"model_n_params\":15191712,\"n_threads\":4,"                    \
	"\"model_type\":\"llama ?B Q8_0\",\"build_commit\":\"ab12\",\"avg_ts\":" ts "}"
#define TEST(p, n, ts) TEST_ON("CPU", "", p, n, ts)

static int parse(const char *text, struct llama_run *run, struct pil_err *err)
{
	*err = (struct pil_err){0};
	return llama_json_parse(text, strlen(text), run, err);
}

static void test_two_tests_are_named_as_llama_bench_names_them(void **state)
{
	struct llama_run run;
	struct pil_err err;

	(void)state;
	assert_int_equal(parse("[" TEST("512", "0", "500.5") "," TEST("0", "128", "80") "]", &run,
			       &err),
			 0);
	assert_int_equal(run.n_tests, 2);
	assert_string_equal(run.tests[0].name, "pp512");
	assert_string_equal(run.tests[1].name, "tg128");
	assert_true(run.tests[0].tokens_per_s > 500.4 && run.tests[1].tokens_per_s == 80);
	assert_string_equal(run.model_type, "llama ?B Q8_0");
	assert_int_equal(run.model_params, 15191712);
	assert_string_equal(run.build, "ab12");
}

static void test_what_is_not_a_bench_is_refused_with_the_reason(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{}",
		"[1]",
		"[",
		"[{}]",
		"[" TEST("-1", "0", "1") "]",
		"[" TEST("0", "0", "1") "]",
		"[" TEST("512", "0", "0") "]",
		"[" TEST("512", "0", "-3") "]",
		"[" TEST("9999999999", "0", "1") "]",
		"[" TEST("512", "0", "\"fast\"") "]",
	};
	struct llama_run run;
	struct pil_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(parse(bad[i], &run, &err), -EPROTO);
		assert_true(err.msg[0] != '\0');
	}
}

static void test_more_tests_than_there_is_room_for_are_refused(void **state)
{
	char text[8192] = "[" TEST("1", "0", "1");
	struct llama_run run;
	struct pil_err err;

	(void)state;
	for (int i = 0; i < LLAMA_MAX_TESTS; i++)
		strcat(text, "," TEST("1", "0", "1"));
	strcat(text, "]");
	assert_int_equal(parse(text, &run, &err), -EPROTO);
}

static void test_a_run_says_which_back_ends_and_gpus_it_had(void **state)
{
	struct llama_run run;
	struct pil_err err;

	(void)state;
	assert_int_equal(parse("[" TEST("512", "0", "1") "]", &run, &err), 0);
	assert_true(llama_run_has_backend(&run, "CPU"));
	assert_false(llama_run_has_backend(&run, "Pillion"));
	assert_string_equal(run.gpus, "");
	assert_int_equal(parse("[" TEST_ON("BLAS,Pillion", "A card", "512", "0", "1") "]", &run,
			       &err),
			 0);
	assert_true(llama_run_has_backend(&run, "BLAS"));
	assert_true(llama_run_has_backend(&run, "Pillion"));
	assert_false(llama_run_has_backend(&run, "Pill"));
	assert_false(llama_run_has_backend(&run, "Pillion2"));
	assert_string_equal(run.gpus, "A card");
	assert_int_equal(parse("[" TEST_ON(",,Pillion2,", "", "512", "0", "1") "]", &run, &err), 0);
	assert_false(llama_run_has_backend(&run, "Pillion"));
}

static void test_back_ends_that_could_hide_a_name_are_refused(void **state)
{
	static const char *const bad[] = {
		"[" TEST_ON("CPU\\u001b[2J", "", "1", "0", "1") "]",
		"[" TEST_ON("0123456789012345678901234567890123456789,"
			    "0123456789012345678901234567890123456789,"
			    "0123456789012345678901234567890123456789,Pillion",
			    "", "1", "0", "1") "]",
		("[{\"n_prompt\":1,\"n_gen\":0,\"model_size\":1,\"model_n_params\":1,"
		 "\"n_threads\":1,\"model_type\":\"a\",\"avg_ts\":1}]"),
	};
	struct llama_run run;
	struct pil_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(parse(bad[i], &run, &err), -EPROTO);
}

static void test_the_model_name_is_made_printable(void **state)
{
	struct llama_run run;
	struct pil_err err;

	(void)state;
	assert_int_equal(parse("[{\"n_prompt\":1,\"n_gen\":0,\"model_size\":1,\"model_n_params\":1,"
			       "\"n_threads\":1,\"model_type\":\"a\\u001b[2J\",\"avg_ts\":1,"
			       "\"backends\":\"CPU\",\"gpu_info\":\"\\u001b[2J\"}]",
			       &run, &err),
			 0);
	assert_null(strchr(run.model_type, 0x1b));
	assert_null(strchr(run.gpus, 0x1b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_tests_are_named_as_llama_bench_names_them),
		cmocka_unit_test(test_what_is_not_a_bench_is_refused_with_the_reason),
		cmocka_unit_test(test_more_tests_than_there_is_room_for_are_refused),
		cmocka_unit_test(test_a_run_says_which_back_ends_and_gpus_it_had),
		cmocka_unit_test(test_back_ends_that_could_hide_a_name_are_refused),
		cmocka_unit_test(test_the_model_name_is_made_printable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
