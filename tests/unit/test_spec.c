/* SPDX-License-Identifier: Apache-2.0
 *
 * What a supervisor is told: its text is read as it was written, and strictly. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "machine/spec.h"

#define SMALL "\"version\": 1, \"name\": \"box\", \"root\": {\"folder\": \"/r\"}"

static int parse(struct machine_spec *spec, const char *text, struct pil_err *err)
{
	*err = (struct pil_err){0};
	return spec_parse(spec, text, strlen(text), err);
}

static void refused(const char *text, const char *why)
{
	struct machine_spec spec;
	struct pil_err err;

	assert_int_equal(parse(&spec, text, &err), -EINVAL);
	if (!strstr(err.msg, why))
		fail_msg("'%s' says '%s', not '%s'", text, err.msg, why);
}

static void test_defaults_fill_a_small_spec(void **state)
{
	struct machine_spec spec;
	struct pil_err err;

	(void)state;
	assert_int_equal(parse(&spec, "{" SMALL "}", &err), 0);
	assert_string_equal(spec.name, "box");
	assert_string_equal(spec.folder, "/r");
	assert_null(spec.disk);
	assert_null(spec.user);
	assert_int_equal(spec.idle_ms, -1);
	assert_int_equal(spec.n_shares, 0);
	assert_null(spec.env[0]);
	assert_true(spec.accelerators && spec.network && spec.system_call_filter);
	assert_false(spec.forward_ports || spec.host_loopback);
	spec_finish(&spec);
}

/* Every field has a value of its own. */
static void fill(struct machine_spec *spec, bool microvm)
{
	spec_begin(spec);
	spec->name = strdup("box-1");
	spec->user = strdup("1000");
	spec->idle_ms = 7;
	spec->env[0] = strdup("A=b=c");
	spec->env[1] = strdup("EMPTY=");
	spec->shares[0] = (struct machine_share){strdup("/host/\"a\" b"), strdup("/mnt/host/a"),
						 .writable = true, .direct = true, .needed = true};
	spec->shares[1] = (struct machine_share){strdup("/m"), strdup("/mnt/models"),
						 .direct = true, .plain = true};
	spec->n_shares = 2;
	spec->accelerators = spec->network = false;
	spec->forward_ports = spec->host_loopback = true;
	spec->memory_bytes = 1ll << 40;
	if (microvm) {
		spec->disk = strdup("/d/disk.ext4");
		spec->processors = 3;
		spec->swap_bytes = 0;
		spec->kernel = strdup("sid");
		spec->kernel_options = strdup("quiet a=b");
		spec->nested = true;
		spec->reclaim = INIT_RECLAIM_DROP_CACHE;
	} else {
		spec->folder = strdup("/d/rootfs");
		spec->lock = strdup("/d/lock");
		spec->processes = 99;
		spec->system_call_filter = false;
	}
}

static void assert_same(const struct machine_spec *a, const struct machine_spec *b)
{
	struct pil_err err = {0};
	_auto_free char *one = spec_write(a, &err);
	_auto_free char *other = spec_write(b, &err);

	assert_string_equal(one, other);
	assert_string_equal(a->name, b->name);
	assert_int_equal(a->n_shares, b->n_shares);
	assert_string_equal(a->shares[0].host, b->shares[0].host);
	assert_int_equal(a->shares[0].needed, b->shares[0].needed);
	assert_int_equal(a->shares[1].direct, b->shares[1].direct);
	assert_int_equal(a->shares[1].plain, b->shares[1].plain);
	assert_string_equal(a->env[0], b->env[0]);
	assert_string_equal(a->env[1], b->env[1]);
	assert_null(b->env[2]);
	assert_int_equal(a->memory_bytes, b->memory_bytes);
	assert_int_equal(a->processes, b->processes);
	assert_int_equal(a->processors, b->processors);
	assert_int_equal(a->swap_bytes, b->swap_bytes);
	assert_int_equal(a->accelerators, b->accelerators);
	assert_int_equal(a->network, b->network);
	assert_int_equal(a->forward_ports, b->forward_ports);
	assert_int_equal(a->host_loopback, b->host_loopback);
	assert_int_equal(a->system_call_filter, b->system_call_filter);
	assert_int_equal(a->nested, b->nested);
	assert_int_equal(a->reclaim, b->reclaim);
}

static void test_what_is_written_is_read(void **state)
{
	(void)state;
	for (int microvm = 0; microvm < 2; microvm++) {
		struct machine_spec spec, back;
		struct pil_err err = {0};
		_auto_fd int fd = -1;

		fill(&spec, microvm);
		fd = spec_open(&spec, &err);
		assert_true(fd >= 0);
		assert_int_equal(spec_read(&back, fd, &err), 0);
		assert_same(&spec, &back);
		spec_finish(&spec);
		spec_finish(&back);
	}
}

static void test_what_is_not_known_is_refused(void **state)
{
	(void)state;
	refused("", "line");
	refused("[]", "not an object");
	refused("{" SMALL, "line 1");
	refused("{" SMALL "} {}", "line 1");
	refused("{" SMALL ", \"name\": \"again\"}", "line 1");
	refused("{" SMALL ", \"nmae\": \"box\"}", "nmae: unknown key");
	refused("{" SMALL ", \"\": 1}", "unknown key");
	refused("{" SMALL ", \"a\\u001b[31m\": 1}", "a\\x1b[31m: unknown key");
	refused("{" SMALL ", \"limits\": {\"memroy\": 1}}", "limits.memroy: unknown key");
	refused("{" SMALL ", \"limits\": 4}", "limits: takes an object");
	refused("{" SMALL ", \"shares\": [{\"source\": \"/a\", \"target\": \"/b\", \"rw\": true}]}",
		"shares.rw: unknown key");
	refused("{\"version\": 2, \"name\": \"box\", \"root\": {\"folder\": \"/r\"}}", "version 1");
	refused("{\"version\": \"1\", \"name\": \"box\", \"root\": {\"folder\": \"/r\"}}",
		"version 1");
}

static void test_what_is_needed_is_missed(void **state)
{
	(void)state;
	refused("{\"name\": \"box\", \"root\": {\"folder\": \"/r\"}}", "version: is missing");
	refused("{\"version\": 1, \"root\": {\"folder\": \"/r\"}}", "name: is missing");
	refused("{\"version\": 1, \"name\": \"box\"}", "root: takes \"folder\"");
	refused("{\"version\": 1, \"name\": \"box\", \"root\": {}}", "root: takes \"folder\"");
	refused("{\"version\": 1, \"name\": \"box\", \"root\": {\"folder\": \"/r\", \"disk\": "
		"\"/d\"}}",
		"root: takes \"folder\"");
	refused("{" SMALL ", \"shares\": [{\"source\": \"/a\"}]}", "shares.target: is missing");
}

static void test_values_have_a_range(void **state)
{
	(void)state;
	refused("{\"version\": 1, \"name\": \"../x\", \"root\": {\"folder\": \"/r\"}}",
		"name: takes");
	refused("{\"version\": 1, \"name\": 5, \"root\": {\"folder\": \"/r\"}}",
		"name: takes a string");
	refused("{\"version\": 1, \"name\": \"box\", \"root\": {\"folder\": \"r\"}}",
		"root.folder: takes an absolute path");
	refused("{" SMALL ", \"user\": \"\"}", "user: takes");
	refused("{" SMALL ", \"user\": \"a\\nb\"}", "user: takes");
	refused("{" SMALL ", \"user\": \"a\\u0000b\"}", "line 1");
	refused("{" SMALL ", \"idleTimeout\": -2}", "from -1 to");
	refused("{" SMALL ", \"idleTimeout\": 2147483648}", "from -1 to");
	refused("{" SMALL ", \"idleTimeout\": 1.5}", "whole number");
	refused("{" SMALL ", \"idleTimeout\": null}", "whole number");
	refused("{" SMALL ", \"limits\": {\"memory\": -1}}", "limits.memory: takes");
	refused("{" SMALL ", \"limits\": {\"memory\": 9223372036854775808}}", "line 1");
	refused("{" SMALL ", \"network\": {\"mode\": \"bridge\"}}", "\"nat\" or \"none\"");
	refused("{" SMALL ", \"devices\": {\"accelerators\": 1}}", "true or false");
	refused("{" SMALL ", \"environment\": {\"A=B\": \"c\"}}", "name of a variable");
	refused("{" SMALL ", \"environment\": {\"A\": 1}}", "environment.A: takes a string");
	refused("{" SMALL ", \"environment\": [\"A=b\"]}", "environment: takes an object");
}

static void test_keys_of_the_other_kind_of_machine_are_refused(void **state)
{
	(void)state;
	refused("{" SMALL ", \"limits\": {\"processors\": 1}}", "a sandbox has no such thing");
	refused("{" SMALL ", \"microvm\": {\"kernel\": \"sid\"}}", "a sandbox has no such thing");
	refused("{" SMALL
		", \"shares\": [{\"source\": \"/a\", \"target\": \"/b\", \"writable\": true}]}",
		"shares.direct: a sandbox");
	refused("{\"version\": 1, \"name\": \"box\", \"root\": {\"disk\": \"/d\"}, \"sandbox\": "
		"{\"systemCallFilter\": false}}",
		"a microVM has no such thing");
}

static void share_refused(const char *target, const char *why)
{
	_auto_free char *text =
		str_printf("{" SMALL ", \"shares\": [{\"source\": \"/a\", \"target\": \"/data\"}, "
			   "{\"source\": \"/b\", \"target\": \"%s\"}]}",
			   target);

	refused(text, why);
}

static void test_shares_keep_off_each_other_and_what_is_pillions(void **state)
{
	static const char *const bad[] = {
		"data",
		"/",
		"/a/",
		"//a",
		"/a/../b",
		"/a/.",
		"/a:b",
		"/dev",
		"/dev/x",
		"/proc",
		"/sys/fs",
		"/run",
		"/tmp",
		"/usr",
		"/usr/lib",
		"/mnt",
		"/mnt/host",
		"/run/pillion",
		"/run/pillion/host",
		"/usr/lib/pillion/bin",
		"/usr/lib/wsl",
		"/a\\u0001",
		"",
	};
	static const char *const fine[] = {"/mnt/host/a",       "/run/x", "/tmp/x",
					   "/usr/lib/pillions", "/datas", "/..a",
					   "/mnt/models"};
	struct machine_spec spec;
	struct pil_err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		share_refused(bad[i], "shares.target: takes an absolute path");
	share_refused("/data", "lies in that of another share");
	share_refused("/data/deep", "lies in that of another share");
	for (size_t i = 0; i < ARRAY_SIZE(fine); i++) {
		_auto_free char *text = str_printf("{" SMALL ", \"shares\": [{\"source\": \"/a\", "
						   "\"target\": \"%s\"}]}",
						   fine[i]);

		if (parse(&spec, text, &err))
			fail_msg("%s", err.msg);
		spec_finish(&spec);
	}
}

/* A list in brackets, or the members of an object, that has one too many. */
static char *many(const char *open, const char *format, int n, const char *close)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	fprintf(out, "{" SMALL ", %s", open);
	for (int i = 0; i < n; i++) {
		fputs(i ? "," : "", out);
		for (const char *p = format; *p; p++)
			*p == '#' ? fprintf(out, "%d", i) : fputc(*p, out);
	}
	fprintf(out, "%s}", close);
	fclose(out);
	return text;
}

static void test_there_is_an_end_to_all(void **state)
{
	_auto_free char *shares = many("\"shares\": [", "{\"source\": \"/a\", \"target\": \"/s#\"}",
				       SPEC_MAX_SHARES + 1, "]");
	_auto_free char *env = many("\"environment\": {", "\"V#\": \"\"", SPEC_MAX_ENV + 1, "}");
	_auto_free char *blank = malloc(SPEC_MAX_BYTES + 2);
	_auto_free char *value = malloc(SPEC_MAX_ENV_BYTES + 1);
	_auto_free char *large = NULL;
	_auto_free char *deep = malloc(SPEC_MAX_BYTES);

	(void)state;
	refused(shares, "at most 8");
	refused(env, "at most 64");
	memset(blank, ' ', SPEC_MAX_BYTES + 1);
	blank[SPEC_MAX_BYTES + 1] = '\0';
	refused(blank, "more than 64 KiB");
	memset(value, 'x', SPEC_MAX_ENV_BYTES);
	value[SPEC_MAX_ENV_BYTES] = '\0';
	large = str_printf("{" SMALL ", \"environment\": {\"A\": \"%s\"}}", value);
	refused(large, "more than 16 KiB");
	memset(deep, '[', SPEC_MAX_BYTES - 1);
	deep[SPEC_MAX_BYTES - 1] = '\0';
	refused(deep, "line 1");
}

static void test_names_that_are_not_utf8_are_said(void **state)
{
	struct machine_spec spec;
	struct pil_err err = {0};

	(void)state;
	fill(&spec, false);
	spec.shares[0].host[1] = (char)0xff;
	assert_null(spec_write(&spec, &err));
	assert_non_null(strstr(err.msg, "UTF-8"));
	spec_finish(&spec);
}

static void test_options_of_the_first_process_come_back(void **state)
{
	struct machine_spec spec;
	struct init_options o, back;
	_auto_argv struct argv a = {0};

	(void)state;
	fill(&spec, true);
	spec_init_options(&spec, &o);
	o.net = "10.0.0.1/24,10.0.0.2,65520";
	o.mounts[0] = "share0:/mnt/models:ro";
	o.mounts[1] = "share1:/x";
	o.reclaim = INIT_RECLAIM_DROP_CACHE;
	o.swap = o.forward = true;
	o.life_fd = 0;
	argv_add(&a, "pillion-init");
	init_options_add(&a, &o);
	assert_true(init_options_parse((int)a.n, a.v, &back));
	assert_string_equal(back.distro, "box-1");
	assert_string_equal(back.user, "1000");
	assert_int_equal(back.idle_ms, 7);
	assert_true(back.no_devices && back.swap && back.forward);
	assert_string_equal(back.env[0], "A=b=c");
	assert_string_equal(back.env[1], "EMPTY=");
	assert_null(back.env[2]);
	assert_string_equal(back.net, o.net);
	assert_string_equal(back.mounts[1], "share1:/x");
	assert_null(back.mounts[2]);
	assert_int_equal(back.reclaim, INIT_RECLAIM_DROP_CACHE);
	assert_int_equal(back.life_fd, 0);
	assert_int_equal(back.ready_fd, -1);
	assert_null(back.token);
	spec_finish(&spec);
}

static void test_options_that_are_not_known_are_refused(void **state)
{
	static const char *const bad[][4] = {
		{"--distro", "a", "--what"},
		{"--distro"},
		{"--distro", "a", "b"},
		{"--swap"},
		{"--distro", "a", "--reclaim", "often"},
		{"--distro", "a", "--life-fd", "-1"},
		{"--distro", "a", "--go-fd", "9999999999"},
	};
	struct init_options o;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_auto_argv struct argv a = {0};

		argv_add(&a, "pillion-init");
		for (int k = 0; k < 4 && bad[i][k]; k++)
			argv_add(&a, bad[i][k]);
		assert_false(init_options_parse((int)a.n, a.v, &o));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_fill_a_small_spec),
		cmocka_unit_test(test_what_is_written_is_read),
		cmocka_unit_test(test_what_is_not_known_is_refused),
		cmocka_unit_test(test_what_is_needed_is_missed),
		cmocka_unit_test(test_values_have_a_range),
		cmocka_unit_test(test_keys_of_the_other_kind_of_machine_are_refused),
		cmocka_unit_test(test_shares_keep_off_each_other_and_what_is_pillions),
		cmocka_unit_test(test_there_is_an_end_to_all),
		cmocka_unit_test(test_names_that_are_not_utf8_are_said),
		cmocka_unit_test(test_options_of_the_first_process_come_back),
		cmocka_unit_test(test_options_that_are_not_known_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
