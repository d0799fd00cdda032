/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "machine/machine.h"

#define PANIC "microVM: pillion-vmm: err: the machine panicked: out of \x1b[31mluck\n"

/* What is said of the end of a machine whose log is @n_noise lines of its guest's, then @end. */
static void explain(unsigned n_noise, const char *end, struct pil_err *err)
{
	char runtime[] = "/tmp/log-XXXXXX";
	struct state_dirs dirs = {.runtime = runtime};
	_auto_free char *folder = NULL;
	_auto_free char *path = NULL;
	FILE *log;

	assert_non_null(mkdtemp(runtime));
	folder = str_printf("%s/machines", runtime);
	path = str_printf("%s/box.log", folder);
	assert_int_equal(path_mkdirs(folder, 0700), 0);
	log = fopen(path, "w");
	assert_non_null(log);
	for (unsigned i = 0; i < n_noise; i++)
		fprintf(log, "microVM: pillion-vmm: err: the machine is fine %062u\n", i);
	fputs(end, log);
	fclose(log);
	machine_explain_end(&dirs, "box", true, err);
	assert_int_equal(path_remove_tree(runtime), 0);
}

static void test_the_last_word_counts(void **state)
{
	struct pil_err err = {0};

	(void)state;
	explain(3, PANIC "guest: bye\n", &err);
	assert_string_equal(err.msg, "the machine panicked: out of \\x1b[31mluck");
}

static void test_a_talkative_guest_does_not_hide_why_it_ended(void **state)
{
	struct pil_err err = {0};

	(void)state;
	explain(40000, PANIC, &err); /* 4 MB */
	assert_string_equal(err.msg, "the machine panicked: out of \\x1b[31mluck");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_last_word_counts),
		cmocka_unit_test(test_a_talkative_guest_does_not_hide_why_it_ended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
