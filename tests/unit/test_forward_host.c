/* SPDX-License-Identifier: Apache-2.0
 *
 * The host's half of localhostForwarding, with a guest that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/proc.h"
#include "base/unixsock.h"
#include "lib/bound.h"
#include "machine/forward_host.h"

struct guest {
	char dir[64], path[96];
	int listen_fd, announce_fd; /* our ends */
	pid_t forwarder;
};

static int setup(void **state)
{
	static struct guest g;
	struct pil_err err = {0};
	int fds[2];

	snprintf(g.dir, sizeof(g.dir), "/tmp/test-forward-XXXXXX");
	assert_non_null(mkdtemp(g.dir));
	snprintf(g.path, sizeof(g.path), "%s/sock", g.dir);
	g.listen_fd = unixsock_listen(g.path, 8, &err);
	assert_true(g.listen_fd >= 0);
	assert_int_equal(pipe(fds), 0);
	g.announce_fd = fds[1];
	g.forwarder = fork();
	assert_true(g.forwarder >= 0);
	if (g.forwarder == 0) { /* as pillion-forward */
		close(fds[1]);
		forward_host_run(dup2(fds[0], STDIN_FILENO), g.path);
		_exit(0);
	}
	close(fds[0]);
	*state = &g;
	return 0;
}

static int teardown(void **state)
{
	struct guest *g = *state;

	if (g->forwarder > 0)
		proc_stop(g->forwarder, 0);
	pil_close_p(&g->listen_fd);
	pil_close_p(&g->announce_fd);
	unlink(g->path);
	rmdir(g->dir);
	return 0;
}

static int call(uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0)
		return fd;
	close(fd);
	return -1;
}

static int call_within(uint16_t port, int timeout_ms)
{
	int64_t due = clock_now_ms() + bound_ms(timeout_ms);
	int fd;

	while ((fd = call(port)) < 0 && clock_now_ms() < due)
		poll(NULL, 0, 5);
	return fd;
}

static uint16_t free_port(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&in, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	close(fd);
	return ntohs(in.sin_port);
}

static void announce(const struct guest *g, const uint16_t *message, size_t len)
{
	assert_int_equal(pil_write_all(g->announce_fd, message, len), 0);
}

static void test_connection_begins_with_its_port_and_passes_both_ways(void **state)
{
	struct guest *g = *state;
	uint16_t port = free_port(), message[] = {1, port}, said;
	int client, guest;
	char c;

	announce(g, message, sizeof(message));
	client = call_within(port, 5000);
	assert_true(client >= 0);
	guest = accept(g->listen_fd, NULL, NULL);
	assert_int_equal(pil_read_all(guest, &said, sizeof(said)), 0);
	assert_int_equal(said, port);
	assert_int_equal(write(client, "a", 1), 1);
	assert_int_equal(read(guest, &c, 1), 1);
	assert_int_equal(c, 'a');
	shutdown(client, SHUT_WR); /* one direction ends, the other goes on */
	assert_int_equal(read(guest, &c, 1), 0);
	assert_int_equal(write(guest, "b", 1), 1);
	assert_int_equal(read(client, &c, 1), 1);
	assert_int_equal(c, 'b');
	close(guest);
	assert_int_equal(read(client, &c, 1), 0);
	close(client);
}

static void test_port_that_is_no_longer_announced_is_let_go(void **state)
{
	struct guest *g = *state;
	uint16_t a = free_port(), b = free_port();
	uint16_t first[] = {2, a, b}, second[] = {1, b};
	int64_t due;
	int fd;

	announce(g, first, sizeof(first));
	fd = call_within(a, 5000);
	assert_true(fd >= 0);
	close(fd);
	announce(g, second, sizeof(second));
	for (due = clock_now_ms() + bound_ms(5000); (fd = call(a)) >= 0 && clock_now_ms() < due;) {
		close(fd);
		poll(NULL, 0, 5);
	}
	assert_int_equal(fd, -1);
	fd = call(b);
	assert_true(fd >= 0);
	close(fd);
}

static void expect_end(struct guest *g)
{
	assert_int_equal(proc_wait(g->forwarder, bound_ms(5000)), 0);
	g->forwarder = 0;
}

static void test_too_many_ports_end_the_forwarding(void **state)
{
	uint16_t message[] = {AGENT_MAX_PORTS + 1};

	announce(*state, message, sizeof(message));
	expect_end(*state);
}

static void test_end_of_the_guest_ends_the_forwarding(void **state)
{
	struct guest *g = *state;
	uint16_t message[] = {3, 40000}; /* two numbers short */

	announce(g, message, sizeof(message));
	pil_close_p(&g->announce_fd);
	expect_end(g);
}

/* Privileged ports, none at all, one twice: nobody is harmed. */
static void test_odd_numbers_do_no_harm(void **state)
{
	uint16_t port = free_port(), message[] = {6, 0, 1, 22, 1023, port, port};
	int fd;

	announce(*state, message, sizeof(message));
	fd = call_within(port, 5000);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(call(1023), -1);
}

/* Half a list holds nobody up, and its rest is still understood. */
static void test_a_list_may_come_in_parts(void **state)
{
	struct guest *g = *state;
	uint16_t first = free_port(), second = free_port(), one[] = {1, first},
		 two[] = {2, first, second};
	int fd;

	announce(g, one, sizeof(one));
	fd = call_within(first, 5000);
	assert_true(fd >= 0);
	close(fd);
	announce(g, two, 3);
	for (int i = 0; i < 2; i++) {
		uint16_t port = 0;
		int in;

		fd = call(first);
		assert_true(fd >= 0);
		in = accept(g->listen_fd, NULL, NULL);
		assert_int_equal(pil_read_all(in, &port, sizeof(port)), 0);
		assert_int_equal(port, first);
		close(in);
		close(fd);
	}
	announce(g, (const uint16_t *)((const char *)two + 3), sizeof(two) - 3);
	fd = call_within(second, 5000);
	assert_true(fd >= 0);
	close(fd);
}

#define with_guest(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_guest(test_connection_begins_with_its_port_and_passes_both_ways),
		with_guest(test_port_that_is_no_longer_announced_is_let_go),
		with_guest(test_too_many_ports_end_the_forwarding),
		with_guest(test_end_of_the_guest_ends_the_forwarding),
		with_guest(test_odd_numbers_do_no_harm),
		with_guest(test_a_list_may_come_in_parts),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
