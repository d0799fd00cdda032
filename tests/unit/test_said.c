/* SPDX-License-Identifier: Apache-2.0
 *
 * What a part prints reaches the log escaped, with its name, and within its budget. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "machine/said.h"

enum { ROOM = 1 << 20 };

static struct log_file {
	int fd, before;
	char text[ROOM];
} log_file;

static int begin(void **state)
{
	log_file.fd = open("/tmp", O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
	log_file.before = dup(STDERR_FILENO);
	*state = &log_file;
	return log_file.fd < 0 || log_file.before < 0;
}

static int end(void **state)
{
	(void)state;
	close(log_file.fd);
	close(log_file.before);
	return 0;
}

/* What the log gets of @rounds times @text. */
static const char *logged(const char *text, size_t len, unsigned rounds)
{
	struct said said;
	struct pil_err err = {0};
	int write_fd = -1, ret = said_open(&said, "part", &write_fd, &err);
	ssize_t n;

	assert_int_equal(ret, 0);
	assert_int_equal(ftruncate(log_file.fd, 0), 0);
	fflush(stderr);
	dup2(log_file.fd, STDERR_FILENO);
	for (unsigned i = 0; i < rounds; i++) {
		ret |= pil_write_all(write_fd, text, len);
		said_pass_on(&said);
	}
	close(write_fd);
	said_finish(&said);
	dup2(log_file.before, STDERR_FILENO);
	assert_int_equal(ret, 0);
	n = pread(log_file.fd, log_file.text, ROOM - 1, 0);
	assert_true(n >= 0);
	log_file.text[n] = '\0';
	return log_file.text;
}

static void test_lines_begin_with_who_said_them_and_control_characters_are_escaped(void **state)
{
	static const char text[] = "a\n\033]0;x\a\r\n\xc2\x9b\0\xe2\x82\xac";

	(void)state;
	assert_string_equal(
		logged(text, sizeof(text) - 1, 1),
		"part: a\npart: \\x1b]0;x\\x07\\x0d\npart: \xc2\\x9b\\x00\xe2\x82\xac\n");
}

/* Else what another part says would not begin with its name. */
static void test_line_ends_where_the_part_pauses(void **state)
{
	(void)state;
	assert_string_equal(logged("ab", 2, 3), "part: ab\npart: ab\npart: ab\n");
	assert_string_equal(logged("a\nb", 3, 1), "part: a\npart: b\n");
	assert_string_equal(logged("ab\n", 3, 2), "part: ab\npart: ab\n");
}

static void test_part_that_prints_without_end_is_read_on_but_not_logged(void **state)
{
	static char text[32 << 10];
	size_t len;

	(void)state;
	memset(text, 'x', sizeof(text));
	len = strlen(logged(text, sizeof(text), 64)); /* 2 MiB */
	assert_true(len >= 256 << 10 && len < 400 << 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			test_lines_begin_with_who_said_them_and_control_characters_are_escaped),
		cmocka_unit_test(test_line_ends_where_the_part_pauses),
		cmocka_unit_test(test_part_that_prints_without_end_is_read_on_but_not_logged),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
