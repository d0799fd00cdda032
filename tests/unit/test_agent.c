/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/agent.h"

static size_t build(char *buf, struct agent_start start, const char *strings, size_t strings_len)
{
	start.strings_bytes = (uint32_t)strings_len;
	memcpy(buf, &start, sizeof(start));
	memcpy(buf + sizeof(start), strings, strings_len);
	return sizeof(start) + strings_len;
}

static void test_request_is_taken_apart(void **state)
{
	static const char strings[] = "alice\0~/work\0echo\0hi there\0TERM=xterm";
	char buf[256];
	const char *storage[16];
	struct agent_request r;
	size_t len =
		build(buf, (struct agent_start){.version = AGENT_VERSION, .n_args = 2, .n_env = 1},
		      strings, sizeof(strings));

	(void)state;
	assert_true(agent_request_parse(&r, buf, len, storage, 16));
	assert_string_equal(r.user, "alice");
	assert_string_equal(r.cwd, "~/work");
	assert_string_equal(r.args[1], "hi there");
	assert_null(r.args[2]);
	assert_string_equal(r.env[0], "TERM=xterm");
	assert_null(r.env[1]);
}

static void test_every_cut_is_refused(void **state)
{
	static const char strings[] = "u\0/\0a";
	char buf[128];
	const char *storage[8];
	struct agent_request r;
	size_t len = build(buf, (struct agent_start){.version = AGENT_VERSION, .n_args = 1},
			   strings, sizeof(strings));

	(void)state;
	for (size_t n = 0; n < len; n++)
		assert_false(agent_request_parse(&r, buf, n, storage, 8));
	assert_true(agent_request_parse(&r, buf, len, storage, 8));
	assert_false(
		agent_request_parse(&r, buf, len + 1, storage, 8)); /* and so is what follows */
}

static void test_more_strings_than_room_is_refused(void **state)
{
	static const char strings[] = "\0\0a\0b\0c";
	char buf[128];
	const char *storage[4];
	struct agent_request r;
	size_t len = build(buf, (struct agent_start){.version = AGENT_VERSION, .n_args = 3},
			   strings, sizeof(strings));

	(void)state;
	assert_false(agent_request_parse(&r, buf, len, storage, 4));
}

static void test_other_version_is_refused(void **state)
{
	char buf[128];
	const char *storage[4];
	struct agent_request r;
	size_t len = build(buf, (struct agent_start){.version = AGENT_VERSION + 1}, "\0", 2);

	(void)state;
	assert_false(agent_request_parse(&r, buf, len, storage, 4));
}

static void test_frame_limits(void **state)
{
	(void)state;
	assert_true(agent_frame_valid(
		&(struct agent_frame){.type = AGENT_STDIN, .len = AGENT_MAX_FRAME}));
	assert_false(agent_frame_valid(
		&(struct agent_frame){.type = AGENT_STDIN, .len = AGENT_MAX_FRAME + 1}));
	assert_false(agent_frame_valid(&(struct agent_frame){.type = 0}));
	assert_false(agent_frame_valid(&(struct agent_frame){.type = AGENT_NUM_TYPES}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_is_taken_apart),
		cmocka_unit_test(test_every_cut_is_refused),
		cmocka_unit_test(test_more_strings_than_room_is_refused),
		cmocka_unit_test(test_other_version_is_refused),
		cmocka_unit_test(test_frame_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
