/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "machine/virtiofsd.h"

enum { ROUNDS = 50, ENOUGH = 1 << 20 };

/* As much as its output takes, in the server's place. */
static size_t flood(pid_t server)
{
	static char text[64 << 10];
	_auto_free char *path = str_printf("/proc/%d/fd/2", server);
	_auto_fd int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	size_t sum = 0;
	ssize_t n;

	assert_true(fd >= 0);
	memset(text, 'x', sizeof(text));
	while (sum < ENOUGH && (n = write(fd, text, sizeof(text))) > 0)
		sum += (size_t)n;
	return sum;
}

static void test_a_server_that_says_much_does_not_fill_the_log(void **state)
{
	char dir[] = "/tmp/virtiofsd-XXXXXX";
	struct machine_share share = {.host = dir, .guest = dir};
	struct fs_share fs;
	struct pil_err err = {0};
	int before = dup(STDERR_FILENO);
	_auto_fd int log_fd = open("/tmp", O_TMPFILE | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
	size_t said = 0;
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	if (virtiofsd_start(&fs, &share, 0, dir, &err)) {
		virtiofsd_stop(&fs);
		assert_int_equal(path_remove_tree(dir), 0);
		print_message("%s\n", err.msg);
		skip();
	}
	assert_true(log_fd >= 0);
	fflush(stderr);
	dup2(log_fd, STDERR_FILENO);
	for (unsigned i = 0; i < ROUNDS; i++) {
		said += flood(fs.pid);
		virtiofsd_tend(&fs, &share);
	}
	virtiofsd_stop(&fs);
	dup2(before, STDERR_FILENO);
	close(before);
	assert_int_equal(fstat(log_fd, &st), 0);
	assert_true(said >= ENOUGH); /* it was let go on, though */
	assert_true(st.st_size >= 64 << 10 && st.st_size <= 320 << 10);
	assert_int_equal(path_remove_tree(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_server_that_says_much_does_not_fill_the_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
