/* SPDX-License-Identifier: Apache-2.0
 *
 * Which frames a sandbox's card lets out, by its filter on a socket; and how the host's addresses
 * are read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/own_addrs.h"
#include "machine/tap.h"

static void add(struct own_addrs *own, const char *text)
{
	uint8_t *to = own->at[own->n++];

	if (inet_pton(AF_INET6, text, to) == 1)
		return;
	memcpy(to, own_addrs_mapped, sizeof(own_addrs_mapped));
	assert_int_equal(inet_pton(AF_INET, text, to + sizeof(own_addrs_mapped)), 1);
}

/* The ends of a socket that lets through what the filter for @own does. */
static void make_link(int *pair, const struct own_addrs *own)
{
	struct sock_filter code[TAP_MAX_CODE];
	struct sock_fprog filter = {.len = tap_filter(code, own), .filter = code};

	assert_in_range(filter.len, 1, TAP_MAX_CODE);
	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
	assert_int_equal(setsockopt(pair[1], SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)),
			 0);
}

static bool leaves(const int *pair, const char *to, uint8_t next)
{
	uint8_t frame[60] = {0}, got[64];
	bool ip6 = strchr(to, ':');

	frame[12] = ip6 ? 0x86 : 0x08;
	frame[13] = ip6 ? 0xdd : 0x00;
	frame[ETH_HLEN + 6] = next;
	assert_int_equal(inet_pton(ip6 ? AF_INET6 : AF_INET, to,
				   frame + ETH_HLEN + (ip6 ? 24 : 16)),
			 1);
	assert_true(write(pair[0], frame, sizeof(frame)) != 0);
	return recv(pair[1], got, sizeof(got), MSG_DONTWAIT) == sizeof(frame);
}

static void close_link(const int *pair)
{
	close(pair[0]);
	close(pair[1]);
}

static void test_nothing_leaves_to_what_is_the_hosts(void **state)
{
	static const char *const kept[] = {"192.0.2.7",     "10.1.2.3",      "2001:db8::7",
					   "2001:db8::1:7", "2001:db8:1::7", "fd00::7"};
	static const char *const others[] = {"192.0.2.8",     "10.1.2.4",      "2001:db8::8",
					     "2001:db8::2:7", "2001:db8:2::7", "fd01::7",
					     "2001:db9::1:7", "1::7",          "255.255.255.255"};
	static const char *const never[] = {"127.0.0.1", "0.0.0.0",          "::1",
					    "::",        "::ffff:192.0.2.8", "::7"};
	struct own_addrs own = {.closed = OWN_ADDRS_CLOSED};
	int pair[2];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		add(&own, kept[i]);
	make_link(pair, &own);
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		assert_false(leaves(pair, kept[i], IPPROTO_TCP));
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		assert_true(leaves(pair, others[i], IPPROTO_TCP));
	for (size_t i = 0; i < ARRAY_SIZE(never); i++)
		assert_false(leaves(pair, never[i], IPPROTO_TCP));
	close_link(pair);
}

static void test_only_neighbours_are_found_at_link_local_addresses(void **state)
{
	struct own_addrs own = {.closed = OWN_ADDRS_CLOSED};
	int pair[2];

	(void)state;
	make_link(pair, &own);
	assert_false(leaves(pair, "fe80::1", IPPROTO_TCP));
	assert_false(leaves(pair, "febf::1", IPPROTO_UDP));
	assert_false(leaves(pair, "fe80::1", IPPROTO_HOPOPTS));
	assert_true(leaves(pair, "fe80::1", IPPROTO_ICMPV6));
	assert_true(leaves(pair, "fec0::1", IPPROTO_TCP));
	assert_true(leaves(pair, "ff02::1", IPPROTO_UDP));
	close_link(pair);
	own.closed = OWN_ADDRS_OPEN;
	make_link(pair, &own);
	assert_true(leaves(pair, "fe80::1", IPPROTO_TCP));
	assert_false(leaves(pair, "::1", IPPROTO_TCP));
	close_link(pair);
}

static void test_as_many_as_there_can_be(void **state)
{
	struct own_addrs own = {.closed = OWN_ADDRS_CLOSED};
	char text[40];
	int pair[2];

	(void)state;
	for (int i = 0; i < OWN_ADDRS_MAX; i++) {
		snprintf(text, sizeof(text), "2001:db8:%x::7", i);
		add(&own, text);
	}
	make_link(pair, &own);
	assert_false(leaves(pair, "2001:db8::7", IPPROTO_TCP));
	assert_false(leaves(pair, text, IPPROTO_TCP));
	assert_true(leaves(pair, "2001:db8:99::7", IPPROTO_TCP));
	close_link(pair);
}

static void test_hosts_addresses_are_read(void **state)
{
	struct own_addrs own, again;

	(void)state;
	assert_true(own_addrs_read(&own));
	for (uint32_t i = 0; i < own.n; i++) {
		char text[INET6_ADDRSTRLEN];
		bool ip4 = !memcmp(own.at[i], own_addrs_mapped, sizeof(own_addrs_mapped));

		assert_non_null(inet_ntop(ip4 ? AF_INET : AF_INET6, own.at[i] + (ip4 ? 12 : 0),
					  text, sizeof(text)));
		assert_true(own_addrs_have(&own, text));
		assert_true(strncmp(text, "127.", 4) && strncmp(text, "fe80", 4));
	}
	assert_false(own_addrs_have(&own, "203.0.113.9"));
	assert_false(own_addrs_have(&own, "no address"));
	assert_false(own_addrs_refresh(&own, &again));
	own.n++;
	assert_true(own_addrs_refresh(&own, &again));
	own = (struct own_addrs){.closed = OWN_ADDRS_UNREAD};
	assert_true(own_addrs_refresh(&own, &again));
	own.closed = OWN_ADDRS_OPEN;
	assert_false(own_addrs_refresh(&own, &again));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_leaves_to_what_is_the_hosts),
		cmocka_unit_test(test_only_neighbours_are_found_at_link_local_addresses),
		cmocka_unit_test(test_as_many_as_there_can_be),
		cmocka_unit_test(test_hosts_addresses_are_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
