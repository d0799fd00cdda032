/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/backoff.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "lib/bound.h"

static void test_sizes_are_binary_and_bounded(void **state)
{
	uint64_t v;

	(void)state;
	assert_true(str_to_bytes("8GB", &v) && v == (uint64_t)8 << 30);
	assert_true(str_to_bytes("512m", &v) && v == 512 << 20);
	assert_true(str_to_bytes("17", &v) && v == 17);
	assert_true(str_to_bytes("3KiB", &v) && v == 3072);
	assert_false(str_to_bytes("", &v));
	assert_false(str_to_bytes("GB", &v));
	assert_false(str_to_bytes("1.5G", &v));
	assert_false(str_to_bytes("99999999999999999999", &v));
	assert_false(str_to_bytes("18446744073709551615T", &v));
}

static void test_numbers_stop_at_their_maximum(void **state)
{
	uint64_t v;

	(void)state;
	assert_true(str_to_u64("255", 255, &v));
	assert_false(str_to_u64("256", 255, &v));
	assert_false(str_to_u64("-1", 255, &v));
	assert_false(str_to_u64(" 1", 255, &v));
	assert_true(str_to_u64("18446744073709551615", UINT64_MAX, &v) && v == UINT64_MAX);
	assert_false(str_to_u64("18446744073709551616", UINT64_MAX, &v));
}

static void test_names_cannot_leave_their_folder(void **state)
{
	(void)state;
	assert_true(str_is_name("Ubuntu-24.04"));
	assert_false(str_is_name(""));
	assert_false(str_is_name(".."));
	assert_false(str_is_name("a/b"));
	assert_false(str_is_name("-a"));
	assert_false(
		str_is_name("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

static void test_escape_shows_control_characters(void **state)
{
	char out[32], tiny[7];

	(void)state;
	assert_string_equal(str_escape(out, sizeof(out), "a\033[0m\n"), "a\\x1b[0m\\x0a");
	assert_string_equal(str_escape(tiny, sizeof(tiny), "abcdefgh"), "ab");
}

static void test_escape_of_controls_leaves_other_languages_alone(void **state)
{
	char out[64], tiny[12];

	(void)state;
	str_escape_controls(out, sizeof(out),
			    "Grün\t\033[2J\n\x7f\xc2\x9b"
			    "5m\u00a0é");
	assert_string_equal(out, "Grün\\x09\\x1b[2J\\x0a\\x7f\\xc2\\x9b5m\u00a0é");
	assert_string_equal(str_escape_controls(out, sizeof(out), "\xc2"), "\xc2");
	assert_string_equal(str_escape_controls(tiny, sizeof(tiny), "abcdefgh"), "abc");
}

static void test_errors_gain_context(void **state)
{
	struct pil_err err = {0};

	(void)state;
	assert_int_equal(pil_err_set(&err, ENOSPC, "write '%s'", "x"), -ENOSPC);
	assert_non_null(strstr(err.hint, "df -h"));
	err = (struct pil_err){0};
	assert_int_equal(pil_err_set(&err, ENOENT, "open '%s'", "x"), -ENOENT);
	assert_string_equal(err.hint, "");
	assert_int_equal(pil_err_prefix(&err, "start '%s'", "deb"), -ENOENT);
	assert_string_equal(err.msg, "start 'deb': open 'x': No such file or directory");
}

static void test_links_below_a_folder_are_refused(void **state)
{
	char dir[] = "/tmp/pillion-test-XXXXXX";
	_auto_free char *folder = NULL;
	_auto_free char *link = NULL;

	(void)state;
	assert_non_null(mkdtemp(dir));
	folder = str_printf("%s/a/b", dir);
	link = str_printf("%s/a/link", dir);
	assert_int_equal(path_mkdirs(folder, 0700), 0);
	assert_int_equal(symlink("b", link), 0);
	assert_int_equal(path_refuse_links(dir, "/"), 0);
	assert_int_equal(path_refuse_links(dir, "/a/b"), 0);
	assert_int_equal(path_refuse_links(dir, "/a/b/missing/too"), 0);
	assert_int_equal(path_refuse_links(dir, "/a/link"), -ELOOP);
	assert_int_equal(path_refuse_links(dir, "a//link/missing"), -ELOOP);
	assert_int_equal(unlink(link), 0);
	assert_int_equal(symlink("/nowhere", link), 0);
	assert_int_equal(path_refuse_links(dir, "/a/link"), -ELOOP);
	assert_int_equal(path_refuse_links(link, "/a"), -ENOENT);
	assert_int_equal(path_remove_tree(dir), 0);
}

static void test_files_are_replaced_whole(void **state)
{
	char dir[] = "/tmp/pillion-test-XXXXXX";
	_auto_free char *path = NULL;
	_auto_free char *text = NULL;

	(void)state;
	assert_non_null(mkdtemp(dir));
	path = str_printf("%s/a/b/file", dir);
	assert_int_equal(pil_write_file(path, 0600, "x", 1), -ENOENT);
	*strrchr(path, '/') = '\0';
	assert_int_equal(path_mkdirs(path, 0700), 0);
	assert_false(path_has_entries(path));
	assert_true(path_has_entries(dir));
	path[strlen(path)] = '/';
	assert_int_equal(pil_write_file(path, 0600, "one", 3), 0);
	assert_false(path_has_entries(path)); /* no folder */
	assert_int_equal(pil_write_file(path, 0640, "two!", 4), 0);
	assert_int_equal(pil_read_file(path, 100, &text), 4);
	assert_string_equal(text, "two!");
	assert_int_equal(pil_read_file(path, 3, &text), -EFBIG);
	assert_int_equal(path_remove_tree(dir), 0);
	assert_false(path_exists(dir));
	assert_false(path_has_entries(dir));
	assert_int_equal(path_remove_tree(dir), 0);
}

static void test_removing_a_tree_does_not_follow_links(void **state)
{
	char dir[] = "/tmp/pillion-test-XXXXXX", other[] = "/tmp/pillion-test-XXXXXX";
	_auto_free char *link = NULL;
	_auto_free char *kept = NULL;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_non_null(mkdtemp(other));
	link = str_printf("%s/link", dir);
	kept = str_printf("%s/kept", other);
	assert_int_equal(pil_write_file(kept, 0600, "", 0), 0);
	assert_int_equal(symlink(other, link), 0);
	assert_int_equal(path_remove_tree(dir), 0);
	assert_true(path_exists(kept));
	assert_int_equal(path_remove_tree(other), 0);
}

static void test_a_program_that_is_not_there_is_an_error(void **state)
{
	struct proc_opts opts = {-1, -1, -1};
	struct pil_err err = {0};

	(void)state;
	assert_int_equal(proc_spawn((char *[]){(char *)"/no/such/program", NULL}, &opts, &err),
			 -ENOENT);
	assert_non_null(strstr(err.msg, "/no/such/program"));
}

static void test_waiting_is_bounded_and_stopping_certain(void **state)
{
	struct proc_opts opts = {-1, -1, -1};
	char *argv[] = {(char *)"sh", (char *)"-c",
			(char *)"trap '' TERM; while :; do sleep 1; done", NULL};
	pid_t pid = proc_spawn(argv, &opts, NULL);

	(void)state;
	assert_true(pid > 0);
	assert_int_equal(proc_wait(pid, 50), -ETIMEDOUT);
	assert_int_equal(proc_stop(pid, 100), 128 + SIGKILL);
}

static void test_descriptors_are_closed_from_one_on(void **state)
{
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		bool good = dup2(1, 50) == 50 && dup2(1, 63) == 63;

		pil_cloexec_from(50);
		good = good && fcntl(50, F_GETFD) == FD_CLOEXEC &&
		       fcntl(63, F_GETFD) == FD_CLOEXEC && fcntl(1, F_GETFD) == 0;
		pil_close_from(51);
		_exit(good && fcntl(63, F_GETFD) < 0 && fcntl(50, F_GETFD) >= 0 ? 0 : 1);
	}
	assert_int_equal(proc_wait(pid, bound_ms(10000)), 0);
}

static void test_children_inherit_only_what_is_kept(void **state)
{
	int kept = dup2(0, 50), not_kept = dup2(0, 51), status;
	struct proc_opts opts = {-1, -1, -1, .keep_fds = &kept, .n_keep_fds = 1};
	char *argv[] = {(char *)"sh", (char *)"-c",
			(char *)"[ -e /proc/self/fd/50 ] && [ ! -e /proc/self/fd/51 ]", NULL};
	pid_t pid = proc_spawn(argv, &opts, NULL);

	(void)state;
	status = proc_wait(pid, bound_ms(5000));
	assert_int_equal(status, 0);
	close(kept);
	close(not_kept);
}

struct source_pair {
	struct loop_source a, b;
	struct loop_timer end;
	struct loop *loop;
	int calls;
};

static void remove_other(struct loop_source *source, uint32_t events)
{
	struct source_pair *p = container_of(source, struct source_pair, a);

	(void)events;
	p->calls++;
	loop_remove(&p->b);
	loop_remove(&p->a);
	loop_timer_arm(p->loop, &p->end, 0);
}

static void must_not_run(struct loop_source *source, uint32_t events)
{
	struct source_pair *p = container_of(source, struct source_pair, b);

	(void)events;
	p->calls++;
	loop_remove(&p->a);
	loop_remove(&p->b);
	loop_timer_arm(p->loop, &p->end, 0);
}

static void end_loop(struct loop_timer *timer)
{
	struct source_pair *p = container_of(timer, struct source_pair, end);

	loop_stop(p->loop, 7);
}

static void test_a_removed_source_is_not_called(void **state)
{
	struct source_pair p = {.a.ready = remove_other,
				.b.ready = must_not_run,
				.end.expired = end_loop};
	int one[2], two[2];

	(void)state;
	assert_int_equal(loop_create(&p.loop), 0);
	assert_int_equal(pipe(one) | pipe(two), 0);
	p.a.fd = one[0];
	p.b.fd = two[0];
	assert_int_equal(write(one[1], "x", 1) + write(two[1], "x", 1), 2);
	assert_int_equal(loop_add(p.loop, &p.a, EPOLLIN) | loop_add(p.loop, &p.b, EPOLLIN), 0);
	assert_int_equal(loop_run(p.loop), 7);
	assert_int_equal(p.calls, 1);
	loop_destroy(p.loop);
	close(one[0]), close(one[1]), close(two[0]), close(two[1]);
}

static void test_the_units_of_the_clock_agree(void **state)
{
	int64_t ns = clock_now_ns(), us = clock_now_us(), ms = clock_now_ms();

	(void)state;
	assert_true(us >= ns / 1000 && us - ns / 1000 < bound_ms(1000) * 1000);
	assert_true(ms >= us / 1000 && ms - us / 1000 < bound_ms(1000));
	assert_true(loop_left_ms(ms + 60000) <= 60000); /* the loop has the same clock */
	assert_true(loop_left_ms(clock_now_ms() + 60000) > 60000 - bound_ms(1000));
}

static void test_a_pause_doubles_after_the_free_failures(void **state)
{
	static const struct backoff_rule rule = {.free = 2, .first_ms = 1000, .longest_ms = 5000};
	static const int64_t expected[] = {0, 0, 1000, 2000, 4000, 5000, 5000};
	struct backoff b = {0};

	(void)state;
	assert_true(backoff_due(&b, 0));
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		int64_t now = 7000 * (int64_t)i;

		backoff_note(&b, &rule, now);
		assert_int_equal(b.due_ms - now, expected[i]);
		assert_true(backoff_due(&b, now + expected[i]));
		assert_true(!expected[i] || !backoff_due(&b, now + expected[i] - 1));
	}
	backoff_reset(&b);
	assert_true(backoff_due(&b, 0));
	backoff_note(&b, &rule, 0);
	assert_true(backoff_due(&b, 0)); /* the free ones are free again */
}

static void test_a_pause_does_not_overflow(void **state)
{
	static const struct backoff_rule rule = {.first_ms = 1, .longest_ms = INT64_MAX / 4};
	struct backoff b = {.n = UINT32_MAX - 1};

	(void)state;
	backoff_note(&b, &rule, 5);
	backoff_note(&b, &rule, 5);
	assert_int_equal(b.n, UINT32_MAX);
	assert_int_equal(b.due_ms, 5 + INT64_MAX / 4);
}

struct clocks {
	struct loop_timer soon, later, moved, cancelled, last;
	struct loop *loop;
	char order[8];
	int64_t start_ms;
	bool early;
};

static void note(struct clocks *c, char name, int64_t after_ms)
{
	c->order[strlen(c->order)] = name;
	c->early = c->early || clock_now_ms() < c->start_ms + after_ms;
}

static void on_soon(struct loop_timer *timer)
{
	struct clocks *c = container_of(timer, struct clocks, soon);

	note(c, 's', 2);
	loop_timer_arm(c->loop, &c->moved, 5); /* it was 1000 */
	loop_timer_cancel(&c->cancelled);
}

static void on_moved(struct loop_timer *timer)
{
	note(container_of(timer, struct clocks, moved), 'm', 7);
}

static void on_later(struct loop_timer *timer)
{
	note(container_of(timer, struct clocks, later), 'l', 40);
}

static void on_cancelled(struct loop_timer *timer)
{
	note(container_of(timer, struct clocks, cancelled), 'c', 0);
}

static void on_last(struct loop_timer *timer)
{
	struct clocks *c = container_of(timer, struct clocks, last);

	note(c, 'e', 60);
	loop_stop(c->loop, 0);
}

static void test_timers_expire_in_order_and_not_early(void **state)
{
	struct clocks c = {.soon.expired = on_soon,
			   .later.expired = on_later,
			   .moved.expired = on_moved,
			   .cancelled.expired = on_cancelled,
			   .last.expired = on_last};

	(void)state;
	assert_int_equal(loop_create(&c.loop), 0);
	c.start_ms = clock_now_ms();
	loop_timer_arm(c.loop, &c.moved, 60000);
	loop_timer_arm(c.loop, &c.last, 60);
	loop_timer_arm(c.loop, &c.later, 40);
	loop_timer_arm(c.loop, &c.cancelled, 20);
	loop_timer_arm(c.loop, &c.soon, 2);
	assert_int_equal(loop_run(c.loop), 0);
	assert_string_equal(c.order, "smle");
	assert_false(c.early);
	assert_true(clock_now_ms() - c.start_ms < bound_ms(900)); /* nothing waited for the 60000 */
	loop_destroy(c.loop);
}

static void test_too_many_descriptors_are_refused_and_closed(void **state)
{
	int pair[2], fds[3] = {0, 1, 2}, got[2], n = 2;
	char c;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(pil_send_fds(pair[0], "x", 1, fds, 3), 0);
	assert_int_equal(pil_recv_fds(pair[1], &c, 1, got, &n, 0), -EPROTO);
	assert_int_equal(n, 0);
	close(pair[0]);
	close(pair[1]);
}

static void test_blanked_text_has_no_control_characters(void **state)
{
	char text[] = "GPU\033]0;x\a\r\n\x7f \xc2\x9b \xc3\xa9";

	(void)state;
	str_blank_controls(text);
	assert_string_equal(text, "GPU?]0;x???? ?? \xc3\xa9");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blanked_text_has_no_control_characters),
		cmocka_unit_test(test_sizes_are_binary_and_bounded),
		cmocka_unit_test(test_numbers_stop_at_their_maximum),
		cmocka_unit_test(test_names_cannot_leave_their_folder),
		cmocka_unit_test(test_escape_shows_control_characters),
		cmocka_unit_test(test_escape_of_controls_leaves_other_languages_alone),
		cmocka_unit_test(test_errors_gain_context),
		cmocka_unit_test(test_links_below_a_folder_are_refused),
		cmocka_unit_test(test_files_are_replaced_whole),
		cmocka_unit_test(test_removing_a_tree_does_not_follow_links),
		cmocka_unit_test(test_a_program_that_is_not_there_is_an_error),
		cmocka_unit_test(test_waiting_is_bounded_and_stopping_certain),
		cmocka_unit_test(test_descriptors_are_closed_from_one_on),
		cmocka_unit_test(test_children_inherit_only_what_is_kept),
		cmocka_unit_test(test_a_removed_source_is_not_called),
		cmocka_unit_test(test_the_units_of_the_clock_agree),
		cmocka_unit_test(test_a_pause_doubles_after_the_free_failures),
		cmocka_unit_test(test_a_pause_does_not_overflow),
		cmocka_unit_test(test_timers_expire_in_order_and_not_early),
		cmocka_unit_test(test_too_many_descriptors_are_refused_and_closed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
