/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/swap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"

static void test_swap_takes_no_space_and_has_no_name(void **state)
{
	char dir[] = "/tmp/pillion-swap.XXXXXX", magic[10];
	struct stat st;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	fd = swap_create(dir, 1ull << 30, NULL);
	assert_true(fd >= 0);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_nlink, 0);
	assert_int_equal(st.st_size, 1 << 30);
	assert_true(st.st_blocks * 512 <= 64 << 10);
	assert_int_equal(pread(fd, magic, sizeof(magic), 4096 - sizeof(magic)), sizeof(magic));
	assert_memory_equal(magic, "SWAPSPACE2", sizeof(magic));
	close(fd);
}

static void test_size_that_is_no_swap_is_refused(void **state)
{
	struct pil_err err = {0};

	(void)state;
	assert_true(swap_create("/tmp", 4096, &err) < 0);
	assert_non_null(strstr(err.msg, "swap of 4096 bytes"));
	assert_true(swap_create("/no/such", 1 << 20, &err) < 0);
	assert_non_null(strstr(err.msg, "/no/such"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_swap_takes_no_space_and_has_no_name),
		cmocka_unit_test(test_size_that_is_no_swap_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
