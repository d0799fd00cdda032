/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "base/fd.h"
#include "base/str.h"
#include "tree/archive.h"
#include "tree/fetch.h"
#include "tree/manifest.h"

#define HASH         "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef"
#define ADDRESS(url) "{\"Url\": \"" url "\", \"Sha256\": \"" HASH "\"}"
#define ENTRY(name, more)                                                                          \
	"{\"Name\": \"" name "\", \"FriendlyName\": \"" name "\", \"Default\": " more "}"
#define LIST(entries) "{\"ModernDistributions\": {\"Deb\": [" entries "]}, \"Default\": \"Deb\"}"
#define GOOD          ENTRY("Debian", "true, \"Amd64Url\": " ADDRESS("https://x.test/a.wsl"))

static int parse(struct manifest *m, const char *text, const char *arch, struct pil_err *err)
{
	return manifest_parse(m, text, strlen(text), arch, err);
}

static void test_entries_are_found_by_flavor_and_by_name(void **state)
{
	const char *text = LIST(
		GOOD ", " ENTRY("Debian-12", "false, \"Arm64Url\": " ADDRESS("http://x.test/b")));
	const struct manifest_entry *e;
	struct pil_err err = {0};
	struct manifest m;

	(void)state;
	assert_int_equal(parse(&m, text, "amd64", &err), 0);
	assert_int_equal(m.n, 1); /* the other one is of another architecture */
	assert_string_equal(m.default_flavor, "Deb");
	e = manifest_find(&m, "dEB");
	assert_non_null(e);
	assert_ptr_equal(e, manifest_find(&m, "DEBIAN"));
	assert_null(manifest_find(&m, "Debian-12"));
	assert_string_equal(e->url, "https://x.test/a.wsl");
	assert_string_equal(e->sha256, /* in lower case */
			    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
	manifest_finish(&m);
	assert_int_equal(parse(&m, text, "arm64", &err), 0);
	assert_int_equal(m.n, 1);
	assert_non_null(manifest_find(&m, "debian-12"));
	manifest_finish(&m);
}

static void test_what_is_not_as_the_format_says_is_refused(void **state)
{
	static const char *const wrong[] = {
		"",
		"[]",
		"{\"ModernDistributions\": []}",
		"{\"Other\": 1}",
		"{\"Default\": 1}",
		"{\"Default\": \"a/b\"}",
		"{\"ModernDistributions\": {\"Deb\": []}}",
		"{\"ModernDistributions\": {\"../x\": [" GOOD "]}}",
		LIST(GOOD ", " GOOD),          /* twice */
		LIST(ENTRY("Debian", "true")), /* no address */
		LIST(ENTRY("Fedora", "true, \"Amd64Url\": " ADDRESS("https://x.test/a"))),
		LIST(ENTRY("Debian", "false, \"Amd64Url\": " ADDRESS("https://x.test/a"))),
		LIST(ENTRY("Debian", "1, \"Amd64Url\": " ADDRESS("https://x.test/a"))),
		LIST(ENTRY("Debian", "true, \"X\": 1, \"Amd64Url\": " ADDRESS("https://x.test/a"))),
		LIST(ENTRY("Debian", "true, \"Amd64Url\": " ADDRESS("ftp://x.test/a"))),
		LIST(ENTRY("Debian", "true, \"Amd64Url\": " ADDRESS("--help"))),
		LIST(ENTRY("Debian", "true, \"Amd64Url\": " ADDRESS("https://x.test/a b"))),
		LIST(ENTRY("Debian", "true, \"Amd64Url\": {\"Url\": \"https://x\", \"Sha256\": "
				     "\"0x12\"}")),
		LIST(GOOD ", " ENTRY("Debian-2", "true, \"Amd64Url\": " ADDRESS("https://x/b"))),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct pil_err err = {0};
		struct manifest m;

		if (parse(&m, wrong[i], "amd64", &err) != -EBADMSG)
			fail_msg("taken: %s", wrong[i]);
		assert_non_null(strstr(err.msg, "list of distributions"));
	}
}

static void test_the_list_that_comes_along_has_what_people_ask_for(void **state)
{
	static const char *const wanted[] = {"Ubuntu",    "Ubuntu-24.04", "Ubuntu-26.04",
					     "Debian",    "Fedora",       "openSUSE",
					     "AlmaLinux", "archlinux",    "kali"};
	struct pil_err err = {0};
	struct manifest m;

	(void)state;
	if (manifest_parse(&m, manifest_builtin, manifest_builtin_bytes, "amd64", &err))
		fail_msg("%s", err.msg);
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		if (!manifest_find(&m, wanted[i]))
			fail_msg("not there: %s", wanted[i]);
	assert_string_equal(m.default_flavor, "Ubuntu");
	manifest_finish(&m);
}

static void test_curl_is_asked_again_only_where_that_can_help(void **state)
{
	bool again;

	(void)state;
	assert_non_null(strstr(fetch_explain(22, 404, &again), "404"));
	assert_false(again);
	fetch_explain(22, 503, &again);
	assert_true(again);
	fetch_explain(18, 200, &again);
	assert_true(again);
	fetch_explain(60, 0, &again);
	assert_false(again);
	fetch_explain(99, 0, &again);
	assert_false(again);
}

static void test_what_an_image_tells_is_checked(void **state)
{
	static const char *const wrong[] = {
		"",
		"{}",
		"{\"uid\": -1, \"env\": [], \"workdir\": \"\"}",
		"{\"uid\": 65534, \"env\": [], \"workdir\": \"\"}",
		"{\"uid\": 0, \"env\": [\"=x\"], \"workdir\": \"\"}",
		"{\"uid\": 0, \"env\": [\"A=b\", 1], \"workdir\": \"\"}",
		"{\"uid\": 0, \"env\": [], \"workdir\": \"a\"}"};
	const char *right = "{\"uid\": 5, \"env\": [\"A=b\", \"C=\"], \"workdir\": \"/srv\"}";
	struct archive_told told;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_false(archive_told_parse(wrong[i], strlen(wrong[i]), &told));
	assert_true(archive_told_parse(right, strlen(right), &told));
	assert_int_equal(told.uid, 5);
	assert_string_equal(told.env[0], "A=b");
	assert_string_equal(told.env[1], "C=");
	assert_null(told.env[2]);
	assert_string_equal(told.workdir, "/srv");
	archive_told_finish(&told);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries_are_found_by_flavor_and_by_name),
		cmocka_unit_test(test_what_is_not_as_the_format_says_is_refused),
		cmocka_unit_test(test_the_list_that_comes_along_has_what_people_ask_for),
		cmocka_unit_test(test_curl_is_asked_again_only_where_that_can_help),
		cmocka_unit_test(test_what_an_image_tells_is_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
