/* SPDX-License-Identifier: Apache-2.0
 *
 * The client's side of a command, with an agent that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/fd.h"
#include "base/proc.h"
#include "lib/bound.h"
#include "machine/attach.h"

enum { ENOUGH_MS = 1300 }; /* for the client to see that the agent is stuck */

struct agent {
	int fd;
	pid_t client;
};

static void receive(struct agent *a, uint8_t type, void *data, uint32_t len)
{
	struct agent_frame f;
	char rest[AGENT_MAX_FRAME];

	assert_int_equal(pil_read_all(a->fd, &f, sizeof(f)), 0);
	assert_int_equal(f.type, type);
	assert_int_equal(pil_read_all(a->fd, rest, f.len), 0);
	if (data) {
		assert_int_equal(f.len, len);
		memcpy(data, rest, len);
	}
}

static void send_part(struct agent *a, uint8_t type, uint32_t value, size_t from, size_t to)
{
	struct {
		struct agent_frame f;
		uint32_t value;
	} whole = {.f = {.type = type, .len = sizeof(value)}, .value = value};

	assert_int_equal(pil_write_all(a->fd, (char *)&whole + from, to - from), 0);
}

static int setup(void **state)
{
	static const char *const args[] = {"cmd", NULL};
	const struct attach_opts opts = {.args = args,
					 .stdin_fd = -1,
					 .stdout_fd = 1,
					 .stderr_fd = 2};
	static struct agent a;
	struct agent_frame started = {.type = AGENT_STARTED};
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	a = (struct agent){.fd = pair[0], .client = fork()};
	assert_true(a.client >= 0);
	if (a.client == 0) {
		struct pil_err err = {0};
		int status;

		close(pair[0]);
		status = attach_run(pair[1], &opts, &err);
		_exit(status < 0 ? 1 : status);
	}
	close(pair[1]);
	receive(&a, AGENT_START, NULL, 0);
	assert_int_equal(pil_write_all(a.fd, &started, sizeof(started)), 0);
	*state = &a;
	return 0;
}

static int teardown(void **state)
{
	struct agent *a = *state;

	if (a->client > 0)
		proc_stop(a->client, 0);
	pil_close_p(&a->fd);
	return 0;
}

static void expect_status(struct agent *a, int status)
{
	assert_int_equal(proc_wait(a->client, bound_ms(5000)), status);
	a->client = 0;
}

static void test_exit_status_is_the_commands(void **state)
{
	send_part(*state, AGENT_EXIT, 7, 0, 12);
	expect_status(*state, 7);
}

static void test_signals_are_passed_on(void **state)
{
	struct agent *a = *state;
	uint32_t number;

	kill(a->client, SIGINT);
	receive(a, AGENT_SIGNAL, &number, sizeof(number));
	assert_int_equal(number, SIGINT);
	send_part(a, AGENT_EXIT, 130, 0, 12);
	expect_status(a, 130);
}

static void test_a_stuck_agent_can_be_left(void **state)
{
	struct agent *a = *state;

	send_part(a, AGENT_EXIT, 0, 0, 5); /* and nothing more */
	poll(NULL, 0, ENOUGH_MS);
	kill(a->client, SIGINT); /* the first is for the command */
	assert_int_equal(proc_wait(a->client, 300), -ETIMEDOUT);
	poll(NULL, 0, ENOUGH_MS);
	kill(a->client, SIGINT);
	expect_status(a, 128 + SIGINT);
}

static void test_a_stuck_agent_does_not_keep_sigterm_waiting(void **state)
{
	struct agent *a = *state;

	send_part(a, AGENT_EXIT, 0, 0, 9);
	poll(NULL, 0, ENOUGH_MS);
	kill(a->client, SIGTERM);
	expect_status(a, 128 + SIGTERM);
}

static void test_signal_is_told_when_the_agent_goes_on(void **state)
{
	struct agent *a = *state;
	uint32_t number;

	send_part(a, AGENT_CREDIT_MORE, 1, 0, 5);
	poll(NULL, 0, ENOUGH_MS);
	kill(a->client, SIGINT);
	assert_int_equal(proc_wait(a->client, 300), -ETIMEDOUT);
	send_part(a, AGENT_CREDIT_MORE, 1, 5, 12);
	receive(a, AGENT_SIGNAL, &number, sizeof(number));
	assert_int_equal(number, SIGINT);
	send_part(a, AGENT_EXIT, 3, 0, 12);
	expect_status(a, 3);
}

/* The terminal's settings are saved when a command starts: a second time they would be raw ones. */
static void test_a_command_starts_once(void **state)
{
	struct agent *a = *state;

	send_part(a, AGENT_STARTED, 0, 0, 12);
	expect_status(a, 1);
}

#define with_agent(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_agent(test_exit_status_is_the_commands),
		with_agent(test_a_command_starts_once),
		with_agent(test_signals_are_passed_on),
		with_agent(test_a_stuck_agent_can_be_left),
		with_agent(test_a_stuck_agent_does_not_keep_sigterm_waiting),
		with_agent(test_signal_is_told_when_the_agent_goes_on),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
