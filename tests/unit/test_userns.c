/* SPDX-License-Identifier: Apache-2.0
 *
 * Programs in user and pid namespaces, and their end: each holds one end of a pipe, which is at its
 * end when the last of them is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "lib/bound.h"
#include "port/userns.h"

enum { ROUNDS = 150, START_US = 12000, GONE_MS = 5000 };

struct held { /* a pipe */
	int ours, theirs;
};

static struct held hold(void)
{
	int fds[2];

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	return (struct held){fds[0], fds[1]};
}

static void assert_let_go(struct held *held)
{
	struct pollfd p = {.fd = held->ours, .events = POLLIN};

	pil_close_p(&held->theirs);
	if (poll(&p, 1, bound_ms(GONE_MS)) != 1 || !(p.revents & POLLHUP))
		fail_msg("something that was started is still there");
	pil_close_p(&held->ours);
}

static pid_t spawn(char *const *argv, enum userns_pids pids, const struct held *held)
{
	const struct proc_opts opts = {.stdin_fd = -1,
				       .stdout_fd = -1,
				       .stderr_fd = -1,
				       .keep_fds = &held->theirs,
				       .n_keep_fds = 1,
				       .new_session = true,
				       .die_with_us = true};
	struct pil_err err = {0};

	return userns_spawn(argv, NULL, pids, &opts, &err);
}

static char *const jail[] = {(char *)"bwrap",
			     (char *)"--unshare-pid",
			     (char *)"--unshare-net",
			     (char *)"--ro-bind",
			     (char *)"/",
			     (char *)"/",
			     (char *)"sleep",
			     (char *)"100",
			     NULL};

static int skip_without_namespaces(void **state)
{
	struct held held = hold();
	pid_t pid = spawn((char *[]){(char *)"true", NULL}, USERNS_OWN_PIDS, &held);

	(void)state;
	if (pid < 0 || proc_wait(pid, bound_ms(GONE_MS)) || !proc_have("bwrap"))
		skip();
	assert_let_go(&held);
	return 0;
}

static void test_it_is_root_and_the_first_process(void **state)
{
	char *const own[] = {(char *)"sh", (char *)"-c", (char *)"[ $$ = 1 ] && [ $(id -u) = 0 ]",
			     NULL};
	char *const host[] = {(char *)"sh", (char *)"-c", (char *)"[ $$ != 1 ] && [ $(id -u) = 0 ]",
			      NULL};
	struct held held = hold();

	(void)state;
	assert_int_equal(proc_wait(spawn(own, USERNS_OWN_PIDS, &held), bound_ms(GONE_MS)), 0);
	assert_int_equal(proc_wait(spawn(host, USERNS_HOST_PIDS, &held), bound_ms(GONE_MS)), 0);
	assert_let_go(&held);
}

static void test_missing_program_is_an_error(void **state)
{
	struct held held = hold();
	char *const argv[] = {(char *)"/no/such/program", NULL};

	(void)state;
	assert_int_equal(spawn(argv, USERNS_OWN_PIDS, &held), -ENOENT);
	assert_int_equal(spawn(argv, USERNS_HOST_PIDS, &held), -ENOENT);
	assert_let_go(&held);
}

/* At all moments of the start of a jail. */
static void test_what_is_stopped_takes_all_with_it(void **state)
{
	(void)state;
	for (int i = 0; i < ROUNDS; i++) {
		struct held held = hold();
		pid_t pid = spawn(jail, USERNS_OWN_PIDS, &held);

		assert_true(pid > 0);
		usleep((useconds_t)(START_US * i / ROUNDS));
		assert_int_equal(proc_stop(pid, 0), 128 + SIGKILL);
		assert_let_go(&held);
	}
}

static void test_who_started_it_takes_all_with_it(void **state)
{
	(void)state;
	for (int i = 0; i < ROUNDS; i++) {
		struct held held = hold();
		pid_t starter = fork();

		if (starter == 0) {
			close(held.ours);
			spawn(jail, USERNS_OWN_PIDS, &held);
			pause();
			_exit(0);
		}
		usleep((useconds_t)(START_US * i / ROUNDS));
		kill(starter, SIGKILL);
		waitpid(starter, NULL, 0);
		assert_let_go(&held);
	}
}

/* Whatever is removed there, say, is what was meant. */
static void test_a_long_path_is_not_cut(void **state)
{
	char path[1024], *end = path;
	int status;
	pid_t pid;

	(void)state;
	for (unsigned i = 0; i < 30; i++)
		end += sprintf(end, "/folder-%020u", i);
	pid = fork();
	if (pid == 0) { /* root's are bound to a short one */
		struct userns_stage stage = {0};

		_exit((getuid() == 0 && setuid(65534)) ||
		      strcmp(userns_stage_add(&stage, path), path) != 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_it_is_root_and_the_first_process,
				       skip_without_namespaces),
		cmocka_unit_test(test_a_long_path_is_not_cut),
		cmocka_unit_test_setup(test_missing_program_is_an_error, skip_without_namespaces),
		cmocka_unit_test_setup(test_what_is_stopped_takes_all_with_it,
				       skip_without_namespaces),
		cmocka_unit_test_setup(test_who_started_it_takes_all_with_it,
				       skip_without_namespaces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
