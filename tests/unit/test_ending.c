/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program says of its failure, and what is said of the end of a machine. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/report.h"
#include "base/str.h"
#include "config/state.h"
#include "machine/ending.h"

static void test_report_arrives_with_its_hint(void **state)
{
	const struct pil_err said = {EACCES, "open x: no \x1b[31mway", "ask\nsomebody"};
	struct pil_err err = {0};
	_auto_fd int write_fd = -1;
	_auto_fd int read_fd = report_open(&write_fd, &err);

	(void)state;
	assert_false(report_receive(read_fd, &err)); /* nothing yet: not waited for */
	report_send(write_fd, &said);
	pil_close_p(&write_fd);
	assert_true(report_receive(read_fd, &err));
	assert_int_equal(err.code, EACCES);
	assert_string_equal(err.msg, "open x: no \\x1b[31mway");
	assert_string_equal(err.hint, "ask\\x0asomebody");
	assert_false(report_receive(read_fd, &err));
	report_send(-1, &said); /* nobody wants it */
}

static void test_what_is_no_report_is_ignored(void **state)
{
	struct pil_err whole = {.code = EIO}, endless = {.code = EIO}, negative = {.code = -1};
	struct pil_err err = {EINTR, "as it was", "too"};
	const struct {
		const void *bytes;
		size_t len;
	} bad[] = {{&whole, sizeof(whole)}, /* no message */
		   {&endless, sizeof(endless)},
		   {&negative, sizeof(negative)},
		   {"why?", 4}};

	(void)state;
	memset(endless.msg, 'x', sizeof(endless.msg));
	strcpy(negative.msg, "why");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_auto_fd int write_fd = -1;
		_auto_fd int read_fd = report_open(&write_fd, &err);

		assert_int_equal(write(write_fd, bad[i].bytes, bad[i].len), (ssize_t)bad[i].len);
		assert_false(report_receive(read_fd, &err));
		assert_string_equal(err.msg, "as it was");
		assert_string_equal(err.hint, "too");
	}
}

/* What is said of the end of a machine whose monitor said @why (NULL: nothing). */
static void explain(const char *why, bool ran, struct pil_err *err)
{
	char runtime[] = "/tmp/end-XXXXXX";
	struct state_dirs dirs = {.runtime = runtime};
	struct pil_err own = {.code = EIO}, said = {.code = EIO};
	_auto_free char *folder = NULL;
	_auto_free char *log = NULL;
	int fd;

	assert_non_null(mkdtemp(runtime));
	folder = str_printf("%s/machines", runtime);
	log = str_printf("%s/box.log", folder);
	assert_int_equal(path_mkdirs(folder, 0700), 0);
	fd = ending_open(&dirs, "box", &own);
	assert_true(fd >= 0);
	report_send(fd, &(struct pil_err){EIO, "the machine before", ""});
	close(fd);
	assert_int_equal(pil_write_file(log, 0600, "pillion-vmm: err: the machine lies\n", 35), 0);
	fd = ending_open(&dirs, "box", &own);
	if (why) {
		snprintf(said.msg, sizeof(said.msg), "%s", why);
		report_send(fd, &said);
	}
	close(fd);
	ending_explain(&dirs, "box", ran, err);
	assert_non_null(strstr(err->hint, "box.log"));
	assert_int_equal(path_remove_tree(runtime), 0);
}

static void test_monitor_says_why_a_machine_ended(void **state)
{
	struct pil_err err = {EPIPE, "the machine has ended", ""};
	struct pil_err start = {EIO, "the microVM ended while starting", ""};

	(void)state;
	explain("the machine panicked: out of \x1b[31mluck", true, &err);
	assert_string_equal(err.msg, "the machine panicked: out of \\x1b[31mluck");
	assert_int_equal(err.code, EPIPE);
	explain("no memory", false, &start);
	assert_string_equal(start.msg, "the microVM ended while starting: no memory");
}

static void test_log_and_earlier_machine_say_nothing(void **state)
{
	struct pil_err err = {EPIPE, "the machine has ended", ""};

	(void)state;
	explain(NULL, true, &err);
	assert_string_equal(err.msg, "the machine has ended");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_report_arrives_with_its_hint),
		cmocka_unit_test(test_what_is_no_report_is_ignored),
		cmocka_unit_test(test_monitor_says_why_a_machine_ended),
		cmocka_unit_test(test_log_and_earlier_machine_say_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
