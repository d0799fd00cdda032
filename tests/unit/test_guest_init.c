/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "passwd.h"
#include "setup.h"

static const char passwd_text[] = "root:x:0:0:root:/root:/bin/bash\n"
				  "broken line\n"
				  "alice:x:1000:1000:A,B:/home/alice:\n"
				  "evil:x:99999999999:0::/:/bin/sh\n"
				  "last:x:7:8::/l:/bin/zsh";
static const char group_text[] =
	"root:x:0:\nvideo:x:44:bob,alice\nalice:x:1000:\nrender:x:105:alice\nali:x:3:ali";

static void test_user_with_groups_and_default_shell(void **state)
{
	struct user u;

	(void)state;
	assert_true(passwd_parse(passwd_text, group_text, "alice", &u));
	assert_int_equal(u.uid, 1000);
	assert_string_equal(u.home, "/home/alice");
	assert_string_equal(u.shell, "/bin/sh");
	assert_int_equal(u.n_groups, 2);
	assert_int_equal(u.groups[0], 44);
	assert_int_equal(u.groups[1], 105);
}

static void test_user_by_number_and_without_final_newline(void **state)
{
	struct user u;

	(void)state;
	assert_true(passwd_parse(passwd_text, group_text, "7", &u));
	assert_string_equal(u.name, "last");
	assert_string_equal(u.shell, "/bin/zsh");
}

static void test_unknown_and_malformed_users_are_not_found(void **state)
{
	struct user u;

	(void)state;
	assert_false(passwd_parse(passwd_text, group_text, "bob", &u));
	assert_false(passwd_parse(passwd_text, group_text, "evil", &u));
	assert_false(passwd_parse(passwd_text, group_text, "broken line", &u));
	assert_false(passwd_parse("", "", "root", &u));
}

static void test_wsl_conf_keys_are_honoured(void **state)
{
	struct wsl_conf c;

	(void)state;
	wsl_conf_parse(
		"# comment\n[gpu]\nenabled = false\nappendLibPath=FALSE\n[Network]\nhostname= box\n"
		"generateHosts=false\n [user]\ndefault=alice\n[boot]\ncommand = echo a=b\n",
		&c);
	assert_false(c.gpu_enabled);
	assert_false(c.gpu_append_lib_path);
	assert_string_equal(c.hostname, "box");
	assert_false(c.generate_hosts);
	assert_true(c.generate_resolv);
	assert_string_equal(c.default_user, "alice");
	assert_string_equal(c.boot_command, "echo a=b");
}

static void test_wsl_conf_nonsense_leaves_defaults(void **state)
{
	struct wsl_conf c;

	(void)state;
	wsl_conf_parse("[gpu\nenabled=perhaps\n=x\n[]\n[network]\nhostname=../../etc\n", &c);
	assert_true(c.gpu_enabled);
	assert_string_equal(c.hostname, "");
	wsl_conf_parse("", &c);
	assert_true(c.generate_resolv);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_user_with_groups_and_default_shell),
		cmocka_unit_test(test_user_by_number_and_without_final_newline),
		cmocka_unit_test(test_unknown_and_malformed_users_are_not_found),
		cmocka_unit_test(test_wsl_conf_keys_are_honoured),
		cmocka_unit_test(test_wsl_conf_nonsense_leaves_defaults),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
