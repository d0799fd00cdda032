/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory of a guest as a file, made where a monitor makes it: in a child, in its jail. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "in_child.h"
#include "vmm/jail.h"
#include "vmm/memory_file.h"
#include "vmm/options.h"

enum { HUGE_BYTES = 2 << 20, BYTES = 4 * HUGE_BYTES };

static int64_t bytes_taken(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? -1 : st.st_blocks * 512;
}

/* 0, or the number of the line where it is not as it should be. */
static int use_huge_file(void *arg)
{
	const struct options o = {.report_fd = -1};
	struct pil_err err = {0};
	struct stat st;
	int fd = -1;

	(void)arg;
	if (jail_enter(&o, &err) || (fd = memory_file_create(BYTES, &err)) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		return __LINE__;
	}
	if (fstat(fd, &st) || st.st_size != BYTES || bytes_taken(fd) != 0)
		return __LINE__;
	if (pwrite(fd, "x", 1, HUGE_BYTES + 5) != 1 || bytes_taken(fd) != HUGE_BYTES)
		return __LINE__;
	if (ftruncate(fd, 16 * BYTES) || fallocate(fd, 0, 0, 16 * BYTES) == 0 || errno != ENOSPC ||
	    ftruncate(fd, BYTES))
		return __LINE__;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES) ||
	    bytes_taken(fd) != 0)
		return __LINE__;
	return 0;
}

static void test_one_byte_takes_a_huge_page(void **state)
{
	char says[80] = "";
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");

	(void)state;
	if (!f || !fgets(says, sizeof(says), f) || strstr(says, "[deny]")) {
		print_message("this host allows no mount huge pages (shmem_enabled)\n");
		skip();
	}
	fclose(f);
	assert_int_equal(in_child(use_huge_file, NULL), 0);
}

static int use_sealed_file(void *arg)
{
	const struct options o = {.report_fd = -1};
	struct pil_err err = {0};
	int fd = -1;

	(void)arg;
	if (jail_enter(&o, &err) || jail_drop(&o, &err) ||
	    (fd = memory_file_create(BYTES, &err)) < 0) {
		fprintf(stderr, "%s\n", err.msg);
		return __LINE__;
	}
	if (bytes_taken(fd) != 0 || pwrite(fd, "x", 1, BYTES - 1) != 1)
		return __LINE__;
	if (ftruncate(fd, 0) == 0 || errno != EPERM)
		return __LINE__;
	return 0;
}

static void test_who_may_not_mount_gets_a_sealed_file(void **state)
{
	(void)state;
	assert_int_equal(in_child(use_sealed_file, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_byte_takes_a_huge_page),
		cmocka_unit_test(test_who_may_not_mount_gets_a_sealed_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
