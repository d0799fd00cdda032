/* SPDX-License-Identifier: Apache-2.0
 *
 * A report is a struct pil_err as it lies in memory, in one write, which a pipe keeps whole. */
#include "base/report.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

static_assert(sizeof(struct pil_err) <= PIPE_BUF, "a report is whole");

int report_open(int *write_fd, struct pil_err *err)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return pil_err_set(err, errno, "make a pipe");
	pil_set_nonblock(fds[0], true);
	*write_fd = fds[1];
	return fds[0];
}

int report_take_fd(int *argc, char **argv)
{
	uint64_t fd;

	if (*argc < 3 || strcmp(argv[*argc - 2], "--report-fd") ||
	    !str_to_u64(argv[*argc - 1], INT32_MAX, &fd))
		return -1;
	*argc -= 2;
	argv[*argc] = NULL;
	return (int)fd;
}

/* #syscalls: write */
void report_send(int fd, const struct pil_err *err)
{
	int saved = errno;

	while (fd >= 0 && write(fd, err, sizeof(*err)) < 0 && errno == EINTR)
		;
	errno = saved;
}

bool report_receive(int fd, struct pil_err *err)
{
	struct pil_err said = {0};
	ssize_t n = fd < 0 ? -1 : read(fd, &said, sizeof(said));

	if (n != (ssize_t)sizeof(said) || said.code < 0 ||
	    !memchr(said.msg, '\0', sizeof(said.msg)) ||
	    !memchr(said.hint, '\0', sizeof(said.hint)) || !said.msg[0])
		return false;
	err->code = said.code ? said.code : EIO;
	str_escape_controls(err->msg, sizeof(err->msg), said.msg);
	if (said.hint[0])
		str_escape_controls(err->hint, sizeof(err->hint), said.hint);
	return true;
}
