/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sys/mman.h>
#include <unistd.h>

#include "emulated.h"
#include "link/mapped_file.h"

enum { BYTES = 3 << 12 };

struct fixture {
	char path[64];
	int fd;
};

static int set_up(void **state)
{
	static struct fixture f;

	strcpy(f.path, "/tmp/pillion-mapped-XXXXXX");
	f.fd = mkstemp(f.path);
	*state = &f;
	return f.fd < 0 || ftruncate(f.fd, BYTES);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	unlink(f->path);
	return close(f->fd);
}

static char *map(struct fixture *f, int prot, int flags)
{
	char *p = mmap(NULL, BYTES - 4096, prot, flags, f->fd, 4096);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static void test_shared_mapping_is_found_with_its_offset(void **state)
{
	struct fixture *f = *state;
	struct mapped_file file;
	uint64_t bytes = 0;
	char *p = map(f, PROT_READ, MAP_SHARED);
	int fd;

	skip_if_emulated("/proc/self/map_files is the emulator's");
	assert_true(mapped_file_find(p + 100, 4096, 0, &file));
	assert_int_equal(file.offset, 4096 + 100);
	fd = mapped_file_open(&file, &bytes);
	assert_true(fd >= 0);
	assert_int_equal(bytes, BYTES);
	close(fd);
	assert_false(mapped_file_find(p + 100, BYTES, 0, &file)); /* more than is mapped */
	munmap(p, BYTES - 4096);
	assert_false(mapped_file_find(p + 100, 4096, 0, &file));
}

static void test_what_may_differ_from_its_file_is_not_found(void **state)
{
	struct mapped_file file;
	char *own = map(*state, PROT_READ, MAP_PRIVATE),
	     *writable = map(*state, PROT_READ | PROT_WRITE, MAP_SHARED), *heap = malloc(BYTES);

	assert_false(mapped_file_find(own, 4096, 0, &file));
	assert_false(mapped_file_find(writable, 4096, 0, &file));
	assert_false(mapped_file_find(heap, 4096, 0, &file));
	free(heap);
	munmap(own, BYTES - 4096);
	munmap(writable, BYTES - 4096);
}

static void test_another_file_of_that_name_is_not_opened(void **state)
{
	struct fixture *f = *state;
	struct mapped_file file;
	uint64_t bytes;
	char *p = map(f, PROT_READ, MAP_SHARED);
	FILE *other;

	skip_if_emulated("/proc/self/map_files is the emulator's");
	assert_true(mapped_file_find(p, 4096, 0, &file));
	unlink(f->path);
	assert_int_equal(mapped_file_open(&file, &bytes), -1);
	other = fopen(f->path, "w");
	assert_non_null(other);
	fclose(other);
	assert_int_equal(mapped_file_open(&file, &bytes), -1);
	munmap(p, BYTES - 4096);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_shared_mapping_is_found_with_its_offset,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_may_differ_from_its_file_is_not_found,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_another_file_of_that_name_is_not_opened,
						set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
