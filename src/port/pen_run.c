/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs a program in its pen and listens to it: to its errors, of which the end is kept, and, where
 * it is asked for, to what it prints.  A program that prints without end is not waited for longer
 * than one that hangs. */
#include "port/pen_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/proc.h"
#include "base/report.h"
#include "base/str.h"
#include "port/pen.h"
#include "port/userns.h"

enum { TICK_MS = 200 };

void pen_bind(struct argv *a, struct userns_stage *stage, const char *how, const char *from,
	      const char *to)
{
	argv_add_all(a, (const char *const[]){how, userns_stage_add(stage, from), to, NULL});
}

/* Keeps the end of the errors. */
static void keep_error(struct pen_said *said, const char *more, size_t n)
{
	const size_t half = sizeof(said->text) / 2;

	if (said->n > half) {
		memmove(said->text, said->text + said->n - half, half);
		said->n = half;
	}
	memcpy(said->text + said->n, more, n);
	said->n += n;
}

/* What is beyond PEN_MAX_OUTPUT is dropped. */
static void keep_output(struct pen_said *said, const char *more, size_t n)
{
	char *grown;

	if (n > PEN_MAX_OUTPUT - said->n_out)
		return;
	grown = realloc(said->out, said->n_out + n + 1);
	if (!grown)
		return;
	said->out = grown;
	memcpy(said->out + said->n_out, more, n);
	said->n_out += n;
	said->out[said->n_out] = '\0';
}

/* Reads what there is of @fd; false: it has ended. */
static bool take(int fd, struct pen_said *said,
		 void (*keep)(struct pen_said *said, const char *more, size_t n))
{
	char more[512];
	ssize_t n = read(fd, more, sizeof(more));

	if (n > 0)
		keep(said, more, (size_t)n);
	return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

/* Reads until all who write have gone, at most until @end_ms. */
static void listen_to(struct pen_said *said, int err_fd, int out_fd, int64_t end_ms,
		      const struct pen_opts *opts)
{
	struct pollfd p[2] = {{.fd = err_fd, .events = POLLIN}, {.fd = out_fd, .events = POLLIN}};

	while (p[0].fd >= 0 || p[1].fd >= 0) {
		int64_t left_ms = end_ms - clock_now_ms();

		if (left_ms <= 0)
			return;
		if (poll(p, 2, left_ms < TICK_MS ? (int)left_ms : TICK_MS) < 0 && errno != EINTR)
			return;
		if (p[0].fd >= 0 && p[0].revents && !take(p[0].fd, said, keep_error))
			p[0].fd = -1;
		if (p[1].fd >= 0 && p[1].revents && !take(p[1].fd, said, keep_output))
			p[1].fd = -1;
		if (opts && opts->tick)
			opts->tick(opts->arg);
	}
}

struct pipes {
	int err[2], out[2];
	int report[2];
};

static void pipes_finish(struct pipes *p)
{
	for (int i = 0; i < 2; i++) {
		pil_close_p(&p->err[i]);
		pil_close_p(&p->out[i]);
		pil_close_p(&p->report[i]);
	}
}

int pen_run(struct argv *a, struct userns_stage *stage, const struct pen_opts *opts,
	    struct pen_said *said, struct pil_err *err)
{
	static const struct pen_opts none = {.stdin_fd = -1, .stdout_fd = -1};
	const struct pen_opts *o = opts ? opts : &none;
	int64_t end_ms = clock_now_ms() + PEN_RUN_MS, left_ms;
	struct pipes pipes = {{-1, -1}, {-1, -1}, {-1, -1}};
	struct proc_opts proc = {.stdin_fd = o->stdin_fd,
				 .new_session = true,
				 .die_with_us = true,
				 .keep_fds = &pipes.report[1],
				 .n_keep_fds = 1,
				 .max_address_bytes = PEN_MAX_BYTES};
	int status;
	pid_t pid;

	if (pipe2(pipes.err, O_CLOEXEC) || (o->capture && pipe2(pipes.out, O_CLOEXEC))) {
		status = pil_err_set(err, errno, "run a program in its pen");
		pipes_finish(&pipes);
		return status;
	}
	if (o->reports) {
		pipes.report[0] = report_open(&pipes.report[1], err);
		argv_add(a, "--report-fd");
		argv_addf(a, "%d", pipes.report[1]);
	}
	proc.stderr_fd = pipes.err[1];
	proc.stdout_fd = o->capture          ? pipes.out[1]
			 : o->stdout_fd >= 0 ? o->stdout_fd
					     : pipes.err[1];
	pid = userns_spawn(a->v, stage, USERNS_OWN_PIDS, &proc, err);
	if (pid == -ENOENT)
		pil_err_hint(err, "sudo apt install bubblewrap");
	pil_close_p(&pipes.err[1]);
	pil_close_p(&pipes.out[1]);
	status = pid;
	if (pid >= 0) {
		listen_to(said, pipes.err[0], pipes.out[0], end_ms, o);
		left_ms = end_ms - clock_now_ms();
		status = proc_wait(pid, left_ms > 0 ? (int)left_ms : 0);
		if (status == -ETIMEDOUT)
			proc_stop(pid, 1000);
	}
	said->reported = report_receive(pipes.report[0], &said->report);
	pipes_finish(&pipes);
	return status;
}

/* In @text, from which newlines at its end are cut. */
static char *last_line(char *text)
{
	size_t n = strlen(text);
	char *line;

	while (n > 0 && text[n - 1] == '\n')
		text[--n] = '\0';
	line = strrchr(text, '\n');
	return line ? line + 1 : text;
}

int pen_failed(const char *what, int status, struct pen_said *said, struct pil_err *err)
{
	char why[480], *line;

	if (status < 0)
		return status == -ETIMEDOUT
			       ? pil_err_say(err, ETIMEDOUT, "%s: no end after 30 min", what)
			       : status;
	if (said->reported) {
		*err = said->report;
		return pil_err_prefix(err, "%s", what);
	}
	said->text[said->n] = '\0';
	line = last_line(said->text); /* in which names of a guest's files may pose as more lines */
	if (strstr(line, "execvp") && strstr(line, "e2fs")) {
		pil_err_hint(err, "sudo apt install e2fsprogs");
	} else if (strstr(line, "No space left") || strstr(line, "Disk quota")) {
		pil_err_hint(err, "is there room? df -h");
	}
	str_escape(why, sizeof(why), line);
	return pil_err_say(err, EIO, "%s: %s", what, why[0] ? why : "failed without a word");
}

void pen_said_finish(struct pen_said *said)
{
	free(said->out);
	*said = (struct pen_said){0};
}
