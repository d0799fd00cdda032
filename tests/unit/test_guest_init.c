/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>

#include "agent/agent.h"
#include "base/fd.h"
#include "guest/init/host_clock.h"
#include "guest/init/listeners.h"
#include "guest/init/passwd.h"
#include "guest/init/reclaim.h"
#include "guest/init/setup.h"
#include "guest/init/wsl_conf.h"

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
	assert_string_equal(c.complaints, "");
}

static void test_wsl_conf_complains_of_what_is_asked_for_in_vain(void **state)
{
	struct wsl_conf c;

	(void)state;
	wsl_conf_parse("[boot]\nsystemd=TRUE\n[automount]\nroot = /drives\nenabled=1\n"
		       "[gpu]\nenabled=perhaps\n[network]\nhostnam=a\033b\n",
		       &c);
	assert_string_equal(c.complaints,
			    "[boot] systemd=TRUE is not supported and has no effect\n"
			    "[automount] root=/drives is not supported and has no effect\n"
			    "[gpu] enabled=perhaps cannot be used\n"
			    "[network] hostnam=a\\x1bb is unknown and ignored\n");
}

static void test_wsl_conf_brought_from_windows_passes_in_silence(void **state)
{
	struct wsl_conf c;

	(void)state;
	wsl_conf_parse("[automount]\nenabled=true\nroot=/mnt/\noptions=\nmountFsTab=false\n"
		       "[boot]\nsystemd=0\n[interop]\nenabled=false\nappendWindowsPath=true\n"
		       "[time]\nuseWindowsTimezone=true\n[filesystem]\numask=022\n",
		       &c);
	assert_string_equal(c.complaints, "");
}

static void test_wsl_conf_complaints_have_an_end(void **state)
{
	char text[64 * 1024], *end = text;
	struct wsl_conf c;

	(void)state;
	while (end - text < (long)sizeof(text) - 32)
		end += sprintf(end, "key%05d=value\n", (int)(end - text));
	wsl_conf_parse(text, &c);
	assert_true(strlen(c.complaints) > sizeof(c.complaints) / 2);
	assert_int_equal(c.complaints[strlen(c.complaints) - 1], '\n');
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

#define OUR_LINE "GGML_BACKEND_PATH=/usr/lib/pillion/lib/libggml-pillion.so\n"

static void test_environment_file_gets_and_loses_one_line(void **state)
{
	static const struct {
		const char *old;
		bool wanted;
		const char *expected;
	} cases[] = {
		{"", true, OUR_LINE},
		{"", false, ""},
		{"A=1\n\n# b", true, "A=1\n\n# b\n" OUR_LINE},
		{"A=1\n" OUR_LINE, true, "A=1\n" OUR_LINE},
		{OUR_LINE "A=1\n" OUR_LINE, true, "A=1\n" OUR_LINE},
		{OUR_LINE "A=1\n", false, "A=1\n"},
		{OUR_LINE "GGML_BACKEND_PATH=/mine\n", true, "GGML_BACKEND_PATH=/mine\n"},
		{"GGML_BACKEND_PATH=/mine\n", false, "GGML_BACKEND_PATH=/mine\n"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *text = setup_environment(cases[i].old, cases[i].wanted);

		assert_string_equal(text, cases[i].expected);
		free(text);
	}
}

/* As a kernel printed them: an ssh server for everybody, one of cups for localhost, one bound to
 * the network card, a connection; then IPv6: any address, localhost, and 127.0.0.1 in IPv6 clothes.
 */
static const char tcp[] =
	"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"
	"   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0 0 1\n"
	"   1: 0100007F:0277 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0 0 1\n"
	"   2: 0F02000A:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0 0 1\n"
	"  13: 0100007F:0277 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0 0 1\n";
static const char tcp6[] =
	"   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0\n"
	"   1: 00000000000000000000000001000000:2CAA 00000000000000000000000000000000:0000 0A 0\n"
	"   2: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 0\n"
	"   3: 000080FE000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0";

static void test_listening_ports_are_found_once_and_in_order(void **state)
{
	const uint16_t expected[] = {22, 631, 8081, 11434};
	uint16_t ports[AGENT_MAX_PORTS];
	unsigned n = listeners_parse_text(tcp, ports, 0);

	(void)state;
	assert_int_equal(n, 2);
	n = listeners_parse_text(tcp6, ports, n);
	assert_int_equal(n, 4);
	assert_memory_equal(ports, expected, sizeof(expected));
}

static void test_more_ports_than_are_announced_do_no_harm(void **state)
{
	uint16_t ports[AGENT_MAX_PORTS];
	unsigned n = 0;

	(void)state;
	for (unsigned port = 3000; port > 2000; port--) {
		char line[128];

		snprintf(line, sizeof(line), " 1: 00000000:%04X 00000000:0000 0A 0\n", port);
		n = listeners_parse_text(line, ports, n);
	}
	assert_int_equal(n, AGENT_MAX_PORTS);
	assert_int_equal(listeners_parse_text("", ports, 0), 0);
	assert_int_equal(listeners_parse_text("0: :::: \n\n:", ports, 0), 0);
}

static int listener(int family, const char *address, uint16_t *port)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} a = {.any.sa_family = (sa_family_t)family};
	socklen_t len = family == AF_INET ? sizeof(a.in) : sizeof(a.in6);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(inet_pton(family, address,
				   family == AF_INET ? (void *)&a.in.sin_addr : &a.in6.sin6_addr),
			 1);
	if (fd < 0 || bind(fd, &a.any, len) || listen(fd, 1))
		return -1; /* a host without IPv6 */
	assert_int_equal(getsockname(fd, &a.any, &len), 0);
	*port = ntohs(family == AF_INET ? a.in.sin_port : a.in6.sin6_port);
	return fd;
}

static bool has_port(const uint16_t *ports, unsigned n, uint16_t port)
{
	for (unsigned i = 0; i < n; i++)
		if (ports[i] == port)
			return true;
	return false;
}

static void test_both_ways_find_what_listens_here(void **state)
{
	uint16_t ports[AGENT_MAX_PORTS], text_ports[AGENT_MAX_PORTS], port, far, six = 0;
	int fd = listener(AF_INET, "127.0.0.1", &port);
	int far_fd = listener(AF_INET, "127.0.0.2", &far); /* localhost does not reach it */
	int six_fd = listener(AF_INET6, "::1", &six);
	unsigned n = listeners_find(ports), n_text = 0;
	char *text = NULL;

	(void)state;
	assert_true(fd >= 0 && far_fd >= 0);
	assert_true(has_port(ports, n, port));
	assert_false(has_port(ports, n, far));
	assert_true(six_fd < 0 || has_port(ports, n, six));
	for (int i = 0; i < 2; i++) {
		if (pil_read_file(i ? "/proc/net/tcp6" : "/proc/net/tcp", 1 << 20, &text) > 0)
			n_text = listeners_parse_text(text, text_ports, n_text);
		free(text);
		text = NULL;
	}
	assert_int_equal(n, n_text);
	assert_memory_equal(ports, text_ports, n * sizeof(*ports));
	close(fd);
	close(far_fd);
	close(six_fd);
	assert_false(has_port(ports, listeners_find(ports), port));
}

static void test_cut_answers_of_the_kernel_end_the_reading(void **state)
{
	struct {
		struct nlmsghdr h;
		struct inet_diag_msg m;
		struct nlmsghdr done;
	} a = {.h = {.nlmsg_len = sizeof(a.h) + sizeof(a.m)},
	       .m = {.idiag_family = AF_INET, .idiag_state = 0x0a, .id.idiag_sport = htons(80)},
	       .done = {.nlmsg_len = sizeof(a.done), .nlmsg_type = NLMSG_DONE}};
	uint16_t ports[AGENT_MAX_PORTS];
	int end;

	(void)state;
	assert_int_equal(listeners_parse_diag(&a, sizeof(a), ports, 0, &end), 1);
	assert_int_equal(end, 1);
	for (uint32_t len = 0; len < sizeof(a.h) + sizeof(a.m); len++) {
		assert_int_equal(listeners_parse_diag(&a, len, ports, 0, &end), 0);
		assert_int_equal(end, 0);
	}
	a.h.nlmsg_len = 3;
	assert_int_equal(listeners_parse_diag(&a, sizeof(a), ports, 0, &end), 0);
	a.h = (struct nlmsghdr){.nlmsg_len = sizeof(a.h), .nlmsg_type = NLMSG_ERROR};
	listeners_parse_diag(&a, sizeof(a), ports, 0, &end);
	assert_int_equal(end, -1);
}

static void test_rest_of_the_processors_is_read(void **state)
{
	uint64_t busy, total;

	(void)state;
	assert_true(reclaim_read_stat("cpu  1 2 4 1000 8 16 32 64 0 0\ncpu0 1 2\n", &busy, &total));
	assert_int_equal(busy, 63);
	assert_int_equal(total, 1127);
	assert_false(reclaim_read_stat("cpu  1 2 3\n", &busy, &total));
	assert_false(reclaim_read_stat("", &busy, &total));
}

static uint64_t step_mib(unsigned total_mib, unsigned cached_mib, unsigned shmem_mib)
{
	char text[256];

	snprintf(text, sizeof(text),
		 "MemTotal: %u kB\nMemFree: 1 kB\nBuffers: 0 kB\nCached: %u kB\n"
		 "SwapCached: 9999999 kB\nShmem: %u kB\n",
		 total_mib << 10, cached_mib << 10, shmem_mib << 10);
	return reclaim_step_bytes(text) >> 20;
}

static void test_cache_is_lowered_in_small_steps_to_a_floor(void **state)
{
	uint64_t cached = 2000, steps = 0;

	(void)state;
	assert_int_equal(step_mib(1024, 60, 0), 0);
	assert_int_equal(step_mib(1024, 70, 0), 6);
	assert_int_equal(step_mib(1024, 300, 0), 16);
	assert_int_equal(step_mib(1024, 600, 550), 0); /* what is in /dev/shm is no cache */
	assert_int_equal(step_mib(4096, 3200, 0), 100);
	assert_int_equal(step_mib(65536, 60000, 0), 256);
	assert_int_equal(step_mib(65536, 2000, 0), 0);
	assert_int_equal(step_mib(1024, 10, 20), 0);
	assert_int_equal(reclaim_step_bytes(""), 0);
	for (uint64_t step; (step = step_mib(4096, (unsigned)cached, 0)); steps++)
		cached -= step;
	assert_int_equal(cached, 128);
	assert_in_range(steps, 50, 120); /* of ten seconds: ten to twenty minutes */
}

static void test_clock_is_set_when_it_is_wrong(void **state)
{
	const int64_t second = 1000000000, now = 1800000000 * second;
	struct host_clock c = {0};

	(void)state;
	assert_true(host_clock_step_ns(&c, now, now + second) == second);
	assert_true(host_clock_step_ns(&c, 0, now) == now);
	assert_true(host_clock_step_ns(&c, now, now + second / 10) == 0);
	assert_true(host_clock_step_ns(&c, now, now - second / 10) == 0);
	assert_true(host_clock_step_ns(&c, now, 0) == 0);
	assert_true(host_clock_step_ns(&c, now, INT64_MIN) == 0);
	assert_true(host_clock_step_ns(&c, -now, INT64_MAX) == 0); /* there is no such number */
}

static void test_clock_is_set_back_only_when_told_twice(void **state)
{
	const int64_t second = 1000000000, now = 1800000000 * second;
	struct host_clock c = {0};

	(void)state;
	assert_true(host_clock_step_ns(&c, now, now - 3600 * second) == 0);
	assert_true(host_clock_step_ns(&c, now + second, now - 3599 * second) == -3600 * second);
	assert_true(host_clock_step_ns(&c, now, now - 5 * second) == 0); /* late messages */
	assert_true(host_clock_step_ns(&c, now, now - 3 * second) == 0);
	assert_true(host_clock_step_ns(&c, now, now) == 0);
	assert_true(host_clock_step_ns(&c, now, now - 3 * second) == 0);
}

static void test_time_may_come_in_pieces_until_the_host_ends_it(void **state)
{
	struct host_clock clock = {0};
	int64_t never = 0; /* which sets nothing */
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], &never, 3), 3);
	assert_true(host_clock_read(&clock, ends[0]));
	assert_int_equal(clock.have, 3);
	assert_int_equal(write(ends[1], &never, 8), 8);
	assert_true(host_clock_read(&clock, ends[0]));
	assert_int_equal(clock.have, 3);
	close(ends[1]);
	assert_false(host_clock_read(&clock, ends[0]));
	close(ends[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rest_of_the_processors_is_read),
		cmocka_unit_test(test_cache_is_lowered_in_small_steps_to_a_floor),
		cmocka_unit_test(test_user_with_groups_and_default_shell),
		cmocka_unit_test(test_user_by_number_and_without_final_newline),
		cmocka_unit_test(test_unknown_and_malformed_users_are_not_found),
		cmocka_unit_test(test_wsl_conf_keys_are_honoured),
		cmocka_unit_test(test_environment_file_gets_and_loses_one_line),
		cmocka_unit_test(test_listening_ports_are_found_once_and_in_order),
		cmocka_unit_test(test_both_ways_find_what_listens_here),
		cmocka_unit_test(test_cut_answers_of_the_kernel_end_the_reading),
		cmocka_unit_test(test_more_ports_than_are_announced_do_no_harm),
		cmocka_unit_test(test_wsl_conf_nonsense_leaves_defaults),
		cmocka_unit_test(test_wsl_conf_complains_of_what_is_asked_for_in_vain),
		cmocka_unit_test(test_wsl_conf_brought_from_windows_passes_in_silence),
		cmocka_unit_test(test_wsl_conf_complaints_have_an_end),
		cmocka_unit_test(test_clock_is_set_when_it_is_wrong),
		cmocka_unit_test(test_clock_is_set_back_only_when_told_twice),
		cmocka_unit_test(test_time_may_come_in_pieces_until_the_host_ends_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
