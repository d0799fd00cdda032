/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/huge_pages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/compiler.h"

static const struct {
	const char *enabled, *shmem_enabled;
	bool own, shared;
	const char *said, *not_said; /* parts of .text */
} hosts[] = {
	{"always [madvise] never\n", "always within_size advise never [deny] force\n", true, false,
	 "with folders of the host (/mnt/models, share =) cannot have them, unless: echo never | "
	 "sudo tee /sys/kernel/mm/transparent_hugepage/shmem_enabled",
	 "madvise"},
	{"[always] madvise never\n", "always within_size advise [never] deny force\n", true, true,
	 "microVMs can have them", "sudo"},
	{"always madvise [never]\n", "always within_size advise never [deny] force\n", false, false,
	 "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled; echo never",
	 "folders"},
	{"always madvise [never]\n", "always within_size advise never deny [force]\n", false, true,
	 "without folders of the host cannot", "; echo"},
	{NULL, NULL, false, false, "the host's kernel has none for microVMs", "sudo"},
	{"[always] madvise never\n", NULL, true, false, "none for microVMs with folders", "sudo"},
};

static void test_every_host_is_told_what_helps(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
		struct huge_pages h;

		huge_pages_judge(hosts[i].enabled, hosts[i].shmem_enabled, &h);
		assert_int_equal(h.own, hosts[i].own);
		assert_int_equal(h.shared, hosts[i].shared);
		assert_non_null(strstr(h.text, hosts[i].said));
		assert_null(strstr(h.text, hosts[i].not_said));
		assert_true(strlen(h.command) + 1 < sizeof(h.command));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_host_is_told_what_helps)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
