/* SPDX-License-Identifier: Apache-2.0
 *
 * Standard output is read through a pipe while the program runs, standard error goes to a memfd
 * and is looked at only after a failure.  Both are bounded: more than CAPTURE_MAX_BYTES of output
 * stops the program. */
#include "bench/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"

enum { POLL_MS = 100, STOP_GRACE_MS = 3000, QUOTE_BYTES = 4096 };

static double now_s(void)
{
	return (double)clock_now_ns() / 1e9;
}

/* Reads until end of file.  0 or -errno: -EINTR asked to stop, -ETIMEDOUT, -EFBIG. */
static int read_output(const struct capture_opts *opts, int fd, double deadline,
		       struct capture *result)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (;;) {
		ssize_t n;

		if (opts->stop && *opts->stop)
			return -EINTR;
		if (now_s() > deadline)
			return -ETIMEDOUT;
		if (poll(&p, 1, POLL_MS) <= 0)
			continue;
		if (result->len == CAPTURE_MAX_BYTES)
			return -EFBIG;
		n = read(fd, result->out + result->len, CAPTURE_MAX_BYTES - result->len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return 0;
		if (n > 0)
			result->len += (size_t)n;
	}
}

/* The last line that is not blank, made printable. */
static void quote_last_line(int fd, char *out, size_t out_size)
{
	char text[QUOTE_BYTES + 1];
	off_t size = lseek(fd, 0, SEEK_END);
	off_t from = size > QUOTE_BYTES ? size - QUOTE_BYTES : 0;
	ssize_t n = pread(fd, text, QUOTE_BYTES, from);
	char *line;

	out[0] = '\0';
	if (n <= 0)
		return;
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
		n--;
	text[n] = '\0';
	line = strrchr(text, '\n');
	str_escape(out, out_size, line ? line + 1 : text);
}

static int report(int ret, int status, const struct capture_opts *opts, int stderr_fd,
		  struct pil_err *err)
{
	const char *name = opts->argv[0];
	char quote[300];

	if (ret == -EINTR)
		return pil_err_say(err, EINTR, "interrupted");
	if (ret == -ETIMEDOUT)
		return pil_err_say(err, ETIMEDOUT, "%s: no end after %d s", name,
				   opts->timeout_ms / 1000);
	if (ret)
		return pil_err_set(err, -ret, "read what %s prints", name);
	if (!status)
		return 0;
	quote_last_line(stderr_fd, quote, sizeof(quote));
	return pil_err_say(err, EIO, "%s: exit status %d: %s", name, status,
			   quote[0] ? quote : "it said nothing");
}

int capture_run(const struct capture_opts *opts, struct capture *result, struct pil_err *err)
{
	_auto_fd int stderr_fd = memfd_create("stderr", MFD_CLOEXEC);
	_auto_fd int in_fd = -1, out_fd = -1;
	double start = now_s();
	int pipe_fds[2], ret, status;
	pid_t pid;

	*result = (struct capture){0};
	if (stderr_fd < 0 || pipe2(pipe_fds, O_CLOEXEC))
		return pil_err_set(err, errno, "run %s", opts->argv[0]);
	in_fd = pipe_fds[0];
	out_fd = pipe_fds[1];
	result->out = calloc(1, CAPTURE_MAX_BYTES + 1);
	if (!result->out)
		return pil_err_set(err, ENOMEM, "run %s", opts->argv[0]);
	pid = proc_spawn(opts->argv,
			 &(struct proc_opts){.stdin_fd = opts->stdin_fd,
					     .stdout_fd = out_fd,
					     .stderr_fd = stderr_fd,
					     .die_with_us = true},
			 err);
	if (pid < 0)
		return (int)pid;
	pil_close_p(&out_fd);
	ret = read_output(opts, in_fd, start + opts->timeout_ms / 1e3, result);
	status = ret ? proc_stop(pid, STOP_GRACE_MS) : proc_wait(pid, opts->timeout_ms);
	if (status == -ETIMEDOUT) {
		ret = status;
		status = proc_stop(pid, STOP_GRACE_MS);
	}
	result->seconds = now_s() - start;
	return report(ret, status, opts, stderr_fd, err);
}
