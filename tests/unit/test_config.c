/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "config/config.h"
#include "config/config_keys.h"
#include "config/registry.h"
#include "disk/copies.h"
#include "kit/kernel_image.h"
#include "kit/runtime_kit.h"
#include "tree/mirror.h"
#include "tree/tree.h"

static char folder[] = "/tmp/pillion-test-XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder + strlen(folder) - 6, "XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	return path_remove_tree(folder);
}

static int load(struct config *c, const char *text, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/config", folder);

	assert_int_equal(pil_write_file(path, 0600, text, strlen(text)), 0);
	return config_load(c, path, err);
}

static void test_defaults_without_a_file(void **state)
{
	struct config c;

	(void)state;
	assert_int_equal(config_load(&c, "/nonexistent", NULL), 0);
	assert_int_equal(c.vm_idle_timeout_ms, 60000);
	config_finish(&c);
}

static void test_keys_are_read(void **state)
{
	struct config c;

	(void)state;
	assert_int_equal(load(&c,
			      "[wsl2]\nvmIdleTimeout=-1\nmemory=8GB\n[accel]\nggml_dir=/opt/"
			      "ggml\nquota=2GB\n"
			      "reference=always\nenv=A=1\nenv=B=x=y\n[npu]\nmin_tops=10\n",
			      NULL),
			 0);
	assert_int_equal(c.vm_idle_timeout_ms, -1);
	assert_string_equal(c.ggml_dir, "/opt/ggml");
	assert_int_equal(c.quota_bytes, (uint64_t)2 << 30);
	assert_true(c.reference_always);
	assert_int_equal(c.n_env, 2);
	assert_string_equal(c.env[1], "B=x=y");
	config_finish(&c);
}

static void test_bad_value_names_its_line(void **state)
{
	struct config c;
	struct pil_err err = {0};

	(void)state;
	assert_int_equal(load(&c, "[accel]\n\nquota=lots\n", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "line 3"));
	assert_int_not_equal(err.hint[0], 0);
}

static void test_line_that_is_no_setting_is_shown(void **state)
{
	struct config c;
	struct pil_err err = {0};

	(void)state;
	assert_int_equal(load(&c, "[wsl2]\nswap=0\ngarbage\nmemory=much\n", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "line 3"));
	assert_non_null(strstr(err.msg, "KEY = VALUE: garbage"));
	assert_int_equal(load(&c, "[wsl2\nmemory=1GB\n", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "line 1"));
	assert_non_null(strstr(err.msg, "[SECTION]"));
	assert_non_null(strstr(err.msg, ": [wsl2"));
}

static void test_folder_for_a_config_is_refused(void **state)
{
	struct config c;
	struct pil_err err = {0};

	(void)state;
	assert_int_equal(config_load(&c, folder, &err), -EISDIR);
	assert_non_null(strstr(err.msg, folder));
	assert_non_null(strstr(err.hint, "ls -ld"));
}

/* Whoever mistypes a value is told what is right. */
static void test_each_setting_says_what_it_takes(void **state)
{
	(void)state;
	for (int i = 0; i < config_num_keys; i++) {
		const struct config_key *key = &config_keys[i];
		struct pil_err err = {0};

		if (!key->of_machine || key->kind == CONFIG_KEY_TEXT)
			continue;
		assert_int_equal(config_key_check(key, "no such value", &err), -EINVAL);
		if (!strstr(err.hint, " takes "))
			fail_msg("%s: %s", key->name, err.hint);
	}
}

static void test_shares_are_folders_with_names_of_their_own(void **state)
{
	static const char eight[] = "/1\nshare=/2\nshare=/3\nshare=/4\nshare=/5\nshare=/6\n"
				    "share=/7\nshare=/8";
	static const char *const bad[] = {
		"/a:sockets:rw",  "srv", "/", "//", ":rw", "/srv/..", "/a:b",
		"/x\nshare=/y/x", eight};
	struct config c;

	(void)state;
	assert_int_equal(load(&c, "[wsl2]\nshare=/srv/my data:rw\nshare = /a:b/c/\nshare=/d:ro\n",
			      NULL),
			 0);
	assert_int_equal(c.n_shares, 3);
	assert_string_equal(c.shares[0].path, "/srv/my data");
	assert_string_equal(c.shares[0].name, "my data");
	assert_true(c.shares[0].writable);
	assert_string_equal(c.shares[1].path, "/a:b/c");
	assert_string_equal(c.shares[1].name, "c");
	assert_false(c.shares[1].writable);
	assert_string_equal(c.shares[2].name, "d");
	config_finish(&c);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_auto_free char *text = str_printf("[wsl2]\nshare=%s\n", bad[i]);
		struct pil_err err = {0};

		assert_int_equal(load(&c, text, &err), -EINVAL);
		assert_non_null(strstr(err.hint, "share takes the absolute path of a folder"));
	}
}

static void test_registry_accepts_only_whole_and_sane_files(void **state)
{
	static const char good[] =
		"{\"name\":\"deb\",\"flavor\":\"debian\",\"version\":1,\"defaultUid\":1000}";
	static const char *const bad[] = {
		"",
		"{}",
		"[]",
		"{\"name\":\"../x\",\"flavor\":\"d\",\"version\":1,\"defaultUid\":0}",
		"{\"name\":\"d\",\"flavor\":\"d\",\"version\":9,\"defaultUid\":0}",
		"{\"name\":\"d\",\"flavor\":\"d\",\"version\":1,\"defaultUid\":-1}",
		"{\"name\":1,\"flavor\":\"d\",\"version\":1,\"defaultUid\":0}",
		"{\"name\":\"a\",\"name\":\"b\",\"flavor\":\"d\",\"version\":1,\"defaultUid\":0}"};
	struct distro d;

	(void)state;
	assert_true(registry_parse(good, sizeof(good) - 1, &d));
	assert_string_equal(d.name, "deb");
	assert_int_equal(d.default_uid, 1000);
	for (size_t n = 0; n < sizeof(good) - 1; n++)
		assert_false(registry_parse(good, n, &d));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(registry_parse(bad[i], strlen(bad[i]), &d));
}

static void test_registry_keeps_a_default(void **state)
{
	struct state_dirs dirs = {.data = folder};
	struct distro a = {.name = "a", .flavor = "debian"}, b = {.name = "b", .flavor = "debian"},
		      found;
	_auto_free char *dir_a = str_printf("%s/distros/a", folder);
	_auto_free char *dir_b = str_printf("%s/distros/b", folder);
	struct pil_err err = {0};

	(void)state;
	assert_int_equal(registry_default(&dirs, &found, &err), -ENOENT);
	assert_int_equal(path_mkdirs(dir_a, 0700) | path_mkdirs(dir_b, 0700), 0);
	assert_int_equal(registry_add(&dirs, &b, NULL) | registry_add(&dirs, &a, NULL), 0);
	assert_int_equal(registry_default(&dirs, &found, NULL), 0);
	assert_string_equal(found.name, "a");
	assert_int_equal(registry_set_default(&dirs, "b", NULL), 0);
	assert_int_equal(registry_default(&dirs, &found, NULL), 0);
	assert_string_equal(found.name, "b");
	assert_int_equal(registry_remove(&dirs, "b", NULL), 0);
	assert_int_equal(registry_default(&dirs, &found, NULL), 0);
	assert_string_equal(found.name, "a"); /* a default that is gone falls back */
	assert_int_equal(registry_find(&dirs, "b", &found, &err), -ENOENT);
	assert_string_equal(err.msg, "There is no distribution with the supplied name.");
}

static void test_mirror_is_the_hosts_own(void **state)
{
	static const char targets[] =
		"sometool||main||https://third.party.example/apt\n"
		"bookworm|bookworm|main|Some Company|https://company.example/apt\n"
		"bookworm|bookworm|contrib|Debian|http://mirror.example/debian\n"
		"stable|bookworm|main|Debian|http://mirror.example/debian\n"
		"bookworm|bookworm|main|Debian|http://second.example/debian\n";
	_auto_free char *found = mirror_choose(targets, "bookworm");

	(void)state;
	assert_string_equal(found, "http://mirror.example/debian");
	assert_null(mirror_choose(targets, "trixie"));
	assert_null(mirror_choose("", "bookworm"));
	assert_null(mirror_choose("bookworm||main||not-an-address\nbookworm\n||||\n", "bookworm"));
	assert_null(mirror_choose("bookworm||main||http://a|b\nbookworm||main||http://a b\n",
				  "bookworm"));
	free(found); /* no index fetched yet: nothing says whose an entry is */
	found = mirror_choose("bookworm||main||http://mirror.example/debian\n", "bookworm");
	assert_string_equal(found, "http://mirror.example/debian");
}

static bool is_version(const char *text, const char *version)
{
	char found[16] = "";

	return kernel_image_version((const uint8_t *)text, strlen(text), found, sizeof(found)) &&
	       !strcmp(found, version);
}

static void test_version_of_a_kernel_is_found(void **state)
{
	(void)state;
	assert_true(is_version("..Linux version %s (%s)..Linux version 6.1.0-x (gcc)", "6.1.0-x"));
	assert_true(
		is_version("Linux version 6.1.0-much-too-long-for-it (Linux version 6.2\n", "6.2"));
	assert_false(is_version("Linux version 6.1.0", "6.1.0")); /* cut off */
	assert_false(is_version("Linux version ", ""));
	assert_false(is_version("no such thing", ""));
}

static void make_file_of_tree(const char *name)
{
	_auto_free char *lib = str_printf("%s/usr/lib/x86_64-linux-gnu", folder);
	_auto_free char *path = str_printf("%s/%s", lib, name);

	assert_int_equal(path_mkdirs(lib, 0755), 0);
	assert_int_equal(pil_write_file(path, 0644, "", 0), 0);
}

static void test_ggml_of_a_tree_is_found_by_its_file(void **state)
{
	char version[RUNTIME_KIT_VERSION_BYTES];

	(void)state;
	assert_false(runtime_kit_ggml_version(folder, version));
	make_file_of_tree("libggml-base.so.0");
	make_file_of_tree("libggml.so.0.27.0");
	make_file_of_tree("libggml-base.so.0.a.\033[31m");
	make_file_of_tree("libggml-base.so.0.27.0000000000000000000000000000000000000");
	assert_false(runtime_kit_ggml_version(folder, version));
	make_file_of_tree("libggml-base.so.0.28.1");
	assert_true(runtime_kit_ggml_version(folder, version));
	assert_string_equal(version, "0.28.1");
}

static void test_ggml_beyond_the_known_ones_is_unknown(void **state)
{
	static const char *const known[] = {"0.25.3", "0.26.0", "0.27.0", "0.27.11"};
	static const char *const unknown[] = {"0.24.9", "0.28.0", "0.270.0", "1.27.0",
					      "0..27",  "0",      ""};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		assert_true(runtime_kit_ggml_known(known[i]));
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
		assert_false(runtime_kit_ggml_known(unknown[i]));
}

static void test_packages_of_a_dry_run_are_listed(void **state)
{
	char log[] = "I: simulate downloading packages with apt...\n"
		     "Inst libc6 (2.41-12+deb13u5 Debian:13.8/stable [amd64]) []\n"
		     "Inst base-files [12] (13.8 Debian:13.8/stable [amd64])\n"
		     "Inst broken\nInst half (\nConf libc6 (2.41-12)\nInst apt (3.0)\n",
	     none[] = "E: nothing\n";
	_auto_free char *list = tree_list_packages(log);
	_auto_free char *empty = tree_list_packages(none);

	(void)state;
	assert_string_equal(list, "apt 3.0\nbase-files 13.8\nhalf \nlibc6 2.41-12+deb13u5\n");
	assert_string_equal(empty, "");
}

/* ---- one machine's own settings ---- */

static void test_settings_of_a_machine_override_the_users(void **state)
{
	struct state_dirs dirs = {.data = folder, .config = folder};
	_auto_free char *own = config_machine_path(&dirs, "deb");
	_auto_free char *dir = str_printf("%s/distros/deb", folder);
	_auto_free char *user = str_printf("%s/config", folder);
	static const char users[] = "[wsl2]\nmemory=8GB\nprocessors=3\nshare=/srv/a\n"
				    "share=/srv/b\n[accel]\nquota=2GB\n";
	static const char its[] = "[wsl2]\nmemory=1GB\nshare=/srv/c:rw\nnetworkingMode=none\n"
				  "[accel]\nweight=25\n";
	struct config c;

	(void)state;
	assert_int_equal(pil_write_file(user, 0600, users, strlen(users)), 0);
	assert_int_equal(path_mkdirs(dir, 0700), 0);
	assert_int_equal(config_load_machine(&c, &dirs, "deb", NULL), 0); /* it has none */
	assert_int_equal(c.memory_bytes, 8ull << 30);
	assert_int_equal(c.weight, 100);
	config_finish(&c);
	assert_int_equal(pil_write_file(own, 0600, its, strlen(its)), 0);
	assert_int_equal(config_load_machine(&c, &dirs, "deb", NULL), 0);
	assert_int_equal(c.memory_bytes, 1ull << 30);
	assert_int_equal(c.processors, 3);
	assert_int_equal(c.quota_bytes, 2ull << 30);
	assert_int_equal(c.weight, 25);
	assert_true(c.no_network);
	assert_int_equal(c.n_shares, 1); /* its list takes the place of the user's */
	assert_string_equal(c.shares[0].path, "/srv/c");
	config_finish(&c);
}

static void test_settings_of_all_machines_are_refused_for_one(void **state)
{
	_auto_free char *path = str_printf("%s/machine.conf", folder);
	static const char text[] = "[wsl2]\nmemory=1GB\n[accel]\nggml_dir=/opt\nquota=1GB\n";
	struct pil_err err = {0};

	(void)state;
	assert_int_equal(pil_write_file(path, 0600, text, strlen(text)), 0);
	assert_int_equal(config_check_machine(path, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "line 4"));
	assert_non_null(strstr(err.msg, "ggml_dir = /opt"));
	assert_non_null(strstr(err.hint, "all machines"));
}

static void assert_set(const char *before, const char *name, const char *value, const char *after)
{
	const struct config_key *key = config_key_find(name, NULL);
	_auto_free char *got = NULL;

	assert_non_null(key);
	got = config_text_set(before, key, &value, value ? 1 : 0);
	assert_string_equal(got, after);
}

static void test_setting_changes_its_line_alone(void **state)
{
	(void)state;
	assert_set(NULL, "memory", "1GB", "[wsl2]\nmemory = 1GB\n");
	assert_set("# mine\n[accel]\nquota=1\n", "memory", "1GB",
		   "# mine\n[accel]\nquota=1\n[wsl2]\nmemory = 1GB\n");
	assert_set("[WSL2]\nswap=0\n; kept\n", "memory", "1GB",
		   "[WSL2]\nmemory = 1GB\nswap=0\n; kept\n");
	assert_set("[pillion]\nswap=0\nMemory = 2GB\nmemory=3GB\nprocessors=1\n", "memory", "1GB",
		   "[pillion]\nswap=0\nmemory = 1GB\nprocessors=1\n");
	assert_set("[accel]\nmemory=9\n[wsl2]\nmemory=8", "memory", "1GB",
		   "[accel]\nmemory=9\n[wsl2]\nmemory = 1GB\n");
	assert_set("[wsl2]\nswap=1", "memory", "1GB", "[wsl2]\nmemory = 1GB\nswap=1");
	assert_set("[wsl2]", "memory", "1GB", "[wsl2]\nmemory = 1GB\n");
	assert_set("[wsl2]\nmemory=1\nswap=1\n", "memory", NULL, "[wsl2]\nswap=1\n");
	assert_set("[wsl2]\nswap=1\n", "memory", NULL, "[wsl2]\nswap=1\n");
	/* what continues a value goes with it */
	assert_set("[wsl2]\nkernelCommandLine=a\n  b\nswap=1\n", "kernelCommandLine", "c",
		   "[wsl2]\nkernelCommandLine = c\nswap=1\n");
}

static void test_values_are_found_as_they_were_written(void **state)
{
	static const char text[] = "[wsl2]\nshare = /a b \nshare=/c:rw\nmemory=1\nmemory= 2GB\n"
				   "[experimental]\nautoMemoryReclaim=disabled\n";
	_auto_free char *shares = config_text_get(text, config_key_find("share", NULL));
	_auto_free char *memory = config_text_get(text, config_key_find("WSL2.Memory", NULL));
	_auto_free char *swap = config_text_get(text, config_key_find("swap", NULL));
	_auto_free char *reclaim =
		config_text_get(text, config_key_find("experimental.autoMemoryReclaim", NULL));
	struct pil_err err = {0};

	(void)state;
	assert_string_equal(shares, "/a b\n/c:rw");
	assert_string_equal(memory, "2GB"); /* the last one holds */
	assert_null(swap);
	assert_string_equal(reclaim, "disabled");
	assert_null(config_key_find("accel.memory", &err));
	assert_non_null(strstr(err.msg, "accel.memory"));
	assert_null(config_key_find("", NULL));
}

static void test_value_is_judged_before_it_is_written(void **state)
{
	struct pil_err err = {0};

	(void)state;
	assert_int_equal(config_key_check(config_key_find("quota", NULL), "4GB", NULL), 0);
	assert_int_equal(config_key_check(config_key_find("quota", NULL), "lots", &err), -EINVAL);
	assert_non_null(strstr(err.hint, "512M"));
	assert_int_equal(config_key_check(config_key_find("weight", NULL), "0", NULL), -EINVAL);
	assert_int_equal(config_key_check(config_key_find("weight", NULL), "1000", NULL), 0);
	assert_int_equal(config_key_check(config_key_find("share", NULL), "relative", NULL),
			 -EINVAL);
	assert_int_equal(config_key_check(config_key_find("env", NULL), "A=1", &err), -EINVAL);
	assert_non_null(strstr(err.hint, "all machines"));
}

static void test_note_of_a_snapshot_is_checked(void **state)
{
	const char *right = "{\"version\": 2, \"defaultUid\": 7, \"made\": 1796095674}";
	static const char *const wrong[] = {
		"",
		"{}",
		"{\"version\": 3, \"defaultUid\": 7, \"made\": 1}",
		"{\"version\": 0, \"defaultUid\": 7, \"made\": 1}",
		"{\"version\": 1, \"defaultUid\": 65534, \"made\": 1}",
		"{\"version\": 1, \"defaultUid\": 7, \"made\": -1}",
	};
	struct snapshot s = {0};

	(void)state;
	assert_true(copies_parse(right, strlen(right), &s));
	assert_int_equal(s.version, 2);
	assert_int_equal(s.default_uid, 7);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_false(copies_parse(wrong[i], strlen(wrong[i]), &s));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_settings_of_a_machine_override_the_users,
						make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_settings_of_all_machines_are_refused_for_one,
						make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(test_setting_changes_its_line_alone, make_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(test_values_are_found_as_they_were_written,
						make_folder, remove_folder),
		cmocka_unit_test(test_note_of_a_snapshot_is_checked),
		cmocka_unit_test_setup_teardown(test_value_is_judged_before_it_is_written,
						make_folder, remove_folder),
		TEST(test_defaults_without_a_file),
		TEST(test_keys_are_read),
		TEST(test_bad_value_names_its_line),
		TEST(test_line_that_is_no_setting_is_shown),
		TEST(test_folder_for_a_config_is_refused),
		TEST(test_each_setting_says_what_it_takes),
		TEST(test_version_of_a_kernel_is_found),
		TEST(test_packages_of_a_dry_run_are_listed),
		TEST(test_shares_are_folders_with_names_of_their_own),
		TEST(test_registry_accepts_only_whole_and_sane_files),
		TEST(test_registry_keeps_a_default),
		TEST(test_mirror_is_the_hosts_own),
		TEST(test_ggml_of_a_tree_is_found_by_its_file),
		TEST(test_ggml_beyond_the_known_ones_is_unknown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
