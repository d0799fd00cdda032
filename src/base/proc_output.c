/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads what a program prints until it has ended, or its time is over. */
#include "base/proc_output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/proc.h"

/* All that comes out of @fd until @end_ms. */
static char *read_all_text(int fd, int64_t end_ms)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	for (char buf[4096]; out && len < PROC_OUTPUT_MAX;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left_ms = end_ms - clock_now_ms();
		ssize_t n;

		if (left_ms <= 0 || (poll(&p, 1, (int)left_ms) < 0 && errno != EINTR))
			break;
		n = p.revents ? read(fd, buf, sizeof(buf)) : -1;
		if (n < 0 && (!p.revents || errno == EINTR))
			continue;
		if (n <= 0)
			break;
		fwrite(buf, 1, (size_t)n, out);
		fflush(out);
	}
	if (out)
		fclose(out);
	return text;
}

int proc_output(char *const *argv, int timeout_ms, char **out, struct pil_err *err)
{
	int64_t end_ms = clock_now_ms() + timeout_ms, left_ms;
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	struct proc_opts opts = {.stdin_fd = -1, .stderr_fd = -1, .die_with_us = true};
	int fds[2], status;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return pil_err_set(err, errno, "run '%s'", argv[0]);
	read_fd = fds[0];
	write_fd = opts.stdout_fd = fds[1];
	pid = proc_spawn(argv, &opts, err);
	if (pid < 0)
		return pid;
	pil_close_p(&write_fd);
	*out = read_all_text(read_fd, end_ms);
	pil_close_p(&read_fd);
	left_ms = end_ms - clock_now_ms();
	status = proc_wait(pid, left_ms > 0 ? (int)left_ms : 0);
	if (status == -ETIMEDOUT) {
		proc_stop(pid, 1000);
		pil_err_say(err, ETIMEDOUT, "run '%s': no end after %d s", argv[0],
			    timeout_ms / 1000);
	}
	return *out ? status : pil_err_set(err, ENOMEM, "run '%s'", argv[0]);
}
