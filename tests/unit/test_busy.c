/* SPDX-License-Identifier: Apache-2.0
 *
 * busy.h: whose CPU time is counted, and when a measurement is worth nothing. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include <sys/wait.h>

#include "bench/busy.h"

#define SPIN_S 0.4

static void spin(double seconds)
{
	struct timespec t;

	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	while ((double)t.tv_sec + (double)t.tv_nsec / 1e9 < seconds);
}

static pid_t spinning_child(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		spin(SPIN_S);
		pause();
	}
	assert_true(pid > 0);
	return pid;
}

static double child_time_of_mark(pid_t pid, const char *const *pid_files)
{
	struct busy_mark from, to;

	(void)pid;
	busy_mark_take(&from, NULL, pid_files);
	for (int i = 0; i < 600; i++) { /* a busy machine may take long to give it its time */
		usleep(50000);
		busy_mark_take(&to, NULL, pid_files);
		if (to.ours_s - from.ours_s > SPIN_S - 0.05)
			break;
		if (!pid_files && i > 20)
			break;
	}
	return to.ours_s - from.ours_s;
}

static void test_line_of_proc_stat_is_split_into_used_and_stolen(void **state)
{
	double used, steal;

	(void)state;
	assert_true(busy_parse_stat("cpu  100 20 30 4000 50 6 7 800 90 9\ncpu0 1\n", 100, &used,
				    &steal));
	assert_true(used > 1.62 && used < 1.64);
	assert_true(steal > 7.9 && steal < 8.1);
	assert_false(busy_parse_stat("cpu  100 20 30\n", 100, &used, &steal));
	assert_false(busy_parse_stat("", 100, &used, &steal));
	assert_false(busy_parse_stat("cpux 1 2 3 4 5 6 7 8", 100, &used, &steal));
}

static void test_tree_named_by_a_pid_file_is_ours(void **state)
{
	char path[] = "/tmp/test_busy-XXXXXX";
	int fd = mkstemp(path);
	const char *const files[] = {"/nonexistent", path, NULL};
	pid_t pid = spinning_child();
	char text[16];
	int len = snprintf(text, sizeof(text), "%d\n", pid);
	double got;

	(void)state;
	assert_true(fd >= 0 && write(fd, text, (size_t)len) == len);
	got = child_time_of_mark(pid, files);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(fd);
	unlink(path);
	assert_true(got > SPIN_S - 0.05);
}

static void test_running_process_that_nobody_named_is_not_ours(void **state)
{
	pid_t pid = spinning_child();
	double got = child_time_of_mark(pid, NULL);

	(void)state;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_true(got < 0.2); /* of this process's own looking */
}

static void test_ended_child_is_ours(void **state)
{
	struct busy_mark from, to;
	pid_t pid;

	(void)state;
	busy_mark_take(&from, NULL, NULL);
	pid = fork();
	if (pid == 0) {
		spin(SPIN_S);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	busy_mark_take(&to, NULL, NULL);
	assert_true(to.ours_s - from.ours_s > SPIN_S - 0.05);
	assert_true(to.used_s >= from.used_s && to.wall_s > from.wall_s);
}

/* Marks of ten seconds, in which all that ran was ours but @other_s and @stolen_s. */
static bool disturbed(double other_s, double stolen_s)
{
	long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	const struct busy_mark from = {.wall_s = 100, .used_s = 7, .steal_s = 3, .ours_s = 2};
	const struct busy_mark to = {.wall_s = 100 + 10.0 / (double)n_cpus,
				     .used_s = 7 + 9 + other_s,
				     .steal_s = 3 + stolen_s,
				     .ours_s = 2 + 9};

	assert_true(busy_available_s(&from, &to) > 9.99 && busy_available_s(&from, &to) < 10.01);
	return busy_disturbed(&from, &to);
}

static void test_three_percent_of_other_work_or_stolen_time_disturb(void **state)
{
	(void)state;
	assert_false(disturbed(0, 0));
	assert_false(disturbed(0.2, 0.1));
	assert_true(disturbed(0.4, 0));
	assert_true(disturbed(0, 0.4));
	assert_true(disturbed(0.2, 0.2));
}

static void test_clocks_that_disagree_are_no_work_of_others(void **state)
{
	(void)state;
	assert_false(disturbed(-5, 0)); /* more ours than all: rounding */
	assert_true(disturbed(-5, 1));  /* and it does not hide what was stolen */
}

static void test_probe_reads_memory_at_a_speed(void **state)
{
	struct busy_probe *probe = busy_probe_create();
	struct busy_mark mark;

	(void)state;
	busy_mark_take(&mark, probe, NULL);
	busy_probe_destroy(probe);
	assert_true(mark.bytes_per_s > 1e8 && mark.bytes_per_s < 1e13);
	busy_mark_take(&mark, NULL, NULL);
	assert_true(mark.bytes_per_s == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line_of_proc_stat_is_split_into_used_and_stolen),
		cmocka_unit_test(test_tree_named_by_a_pid_file_is_ours),
		cmocka_unit_test(test_running_process_that_nobody_named_is_not_ours),
		cmocka_unit_test(test_ended_child_is_ours),
		cmocka_unit_test(test_three_percent_of_other_work_or_stolen_time_disturb),
		cmocka_unit_test(test_clocks_that_disagree_are_no_work_of_others),
		cmocka_unit_test(test_probe_reads_memory_at_a_speed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
