/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors and whole transfers.
 *
 * close_range() may be missing or denied by a filter; then descriptors are closed one by one.  A
 * descriptor that comes with a message belongs to the caller, or is closed here: none is lost. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* #syscalls: close */
void pil_close_p(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

enum { MANY_FDS = 1 << 16 }; /* a limit may be in the billions */

/* close_range(), also where the C library (musl) or the kernel (a filter's, too) has none. */
static void close_range_from(unsigned first, unsigned flags)
{
	long n;

	if (syscall(SYS_close_range, first, ~0u, flags) == 0)
		return;
	n = sysconf(_SC_OPEN_MAX);
	for (int fd = (int)first; fd < n && fd < MANY_FDS; fd++)
		if (!flags)
			close(fd);
		else
			fcntl(fd, F_SETFD, FD_CLOEXEC);
}

void pil_close_from(int first)
{
	close_range_from((unsigned)first, 0);
}

void pil_cloexec_from(int first)
{
	close_range_from((unsigned)first, 1 << 2 /* CLOSE_RANGE_CLOEXEC */);
}

int pil_read_all(int fd, void *buf, size_t len)
{
	char *p = buf;

	while (len) {
		ssize_t n = read(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EPIPE;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int pil_write_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int pil_sendv_all(int fd, struct iovec *iov, int n_iov)
{
	while (n_iov > 0) {
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n_iov};
		ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		while (n_iov > 0 && (size_t)n >= iov->iov_len) {
			n -= (ssize_t)iov->iov_len;
			iov++;
			n_iov--;
		}
		if (n_iov > 0) {
			iov->iov_base = (char *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

ssize_t pil_read_file(const char *path, size_t max, char **out)
{
	_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	_auto_free char *buf = NULL;
	size_t len = 0, cap = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n;

		if (len + 1 >= cap) {
			char *bigger = realloc(buf, cap = cap ? cap * 2 : 4096);

			if (!bigger)
				return -ENOMEM;
			buf = bigger;
		}
		n = read(fd, buf + len, cap - len - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
		if (len > max)
			return -EFBIG;
	}
	buf[len] = '\0';
	*out = pil_take_ptr(&buf);
	return (ssize_t)len;
}

int pil_write_file(const char *path, mode_t mode, const void *buf, size_t len)
{
	_auto_free char *tmp = NULL;
	_auto_fd int fd = -1;
	int err;

	if (asprintf(&tmp, "%s.XXXXXX", path) < 0)
		return -ENOMEM;
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = pil_write_all(fd, buf, len);
	if (!err && (fchmod(fd, mode) || fsync(fd) || rename(tmp, path)))
		err = -errno;
	if (err)
		unlink(tmp);
	return err;
}

/* #syscalls: fcntl */
int pil_set_nonblock(int fd, bool on)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
	return fcntl(fd, F_SETFL, flags) ? -errno : 0;
}

union fd_control {
	struct cmsghdr first;
	char buf[CMSG_SPACE(sizeof(int) * PIL_MAX_PASSED_FDS)];
};

int pil_send_fds(int sock, const void *buf, size_t len, const int *fds, int n_fds)
{
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};
	union fd_control control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (len == 0 || n_fds < 0 || n_fds > PIL_MAX_PASSED_FDS)
		return -EINVAL;
	if (n_fds) {
		struct cmsghdr *c = &control.first;

		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n_fds);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)n_fds);
	}
	do {
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	iov.iov_base = (char *)iov.iov_base + n;
	iov.iov_len = len - (size_t)n;
	return iov.iov_len ? pil_sendv_all(sock, &iov, 1) : 0;
}

/* #syscalls: recvmsg */
ssize_t pil_recv_fds(int sock, void *buf, size_t len, int *fds, int *n_fds, int flags)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	union fd_control control;
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	int capacity = *n_fds, excess = 0;
	ssize_t n;

	*n_fds = 0;
	do {
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | flags);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (*n_fds < capacity) {
				fds[(*n_fds)++] = fd;
			} else {
				close(fd);
				excess++;
			}
		}
	}
	if (excess || (msg.msg_flags & MSG_CTRUNC)) {
		while (*n_fds > 0)
			close(fds[--*n_fds]);
		return -EPROTO;
	}
	return n;
}

void pil_raise_fd_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}
