/* SPDX-License-Identifier: Apache-2.0
 *
 * What an agent, which is in its guest's hands, says to the command line that runs a command there:
 * the input is a byte of options and then all that it sends. */
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "machine/attach.h"

enum { MAX_INPUT = 128 << 10, HAS_INPUT = 1, HAS_TTY = 2, OUTPUT_CLOSED = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int open_or_abort(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		abort();
	return fd;
}

static void *drain(void *arg)
{
	char buf[65536];

	while (read(*(int *)arg, buf, sizeof(buf)) > 0)
		;
	return NULL;
}

/* Where what is written goes: nowhere, or to a pipe that nobody reads any more. */
static int output(bool closed)
{
	static int null_fd = -1, broken_fd = -1;
	int fds[2];

	if (null_fd < 0) {
		signal(SIGPIPE, SIG_IGN);
		null_fd = open_or_abort("/dev/null", O_WRONLY);
		if (pipe2(fds, O_CLOEXEC))
			abort();
		close(fds[0]);
		broken_fd = fds[1];
	}
	return closed ? broken_fd : null_fd;
}

/* A terminal at which nobody types, and whose screen nobody looks at. */
static int terminal(void)
{
	static int master_fd = -1, slave_fd = -1;
	char seen[4096];

	if (master_fd < 0 && openpty(&master_fd, &slave_fd, NULL, NULL, NULL))
		abort();
	fcntl(master_fd, F_SETFL, O_NONBLOCK);
	fcntl(slave_fd, F_SETFL, O_NONBLOCK);
	while (read(master_fd, seen, sizeof(seen)) > 0)
		;
	return slave_fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const args[] = {"command", NULL};
	static int zero_fd = -1;
	const int room = 2 * MAX_INPUT;
	struct attach_opts opts = {.args = args, .stdin_fd = -1};
	struct pil_err err = {0};
	pthread_t reader;
	int pair[2], status;

	if (size < 1 || size > MAX_INPUT ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return 0;
	if (zero_fd < 0)
		zero_fd = open_or_abort("/dev/zero",
					O_RDONLY); /* input without an end: credit bounds it */
	if (data[0] & HAS_INPUT)
		opts.stdin_fd = zero_fd;
	opts.stdout_fd = opts.stderr_fd = output(data[0] & OUTPUT_CLOSED);
	if (data[0] & HAS_TTY)
		opts.stderr_fd = terminal();
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	if (pil_write_all(pair[1], data + 1, size - 1))
		abort();
	shutdown(pair[1], SHUT_WR); /* an agent that says no more has ended */
	pthread_create(&reader, NULL, drain, &pair[1]);
	status = attach_run(pair[0], &opts, &err);
	if (status > 255 || (status < 0 && !err.msg[0]))
		abort();
	pthread_join(reader, NULL);
	close(pair[1]);
	return 0;
}
