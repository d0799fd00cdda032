/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: an address holds 107 bytes.  A path that is longer is reached by way of its
 * folder, opened, as /proc/self/fd/N/NAME. */
#include "base/unixsock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/queued.h"
#include "base/str.h"

enum { CONNECT_S = 10 };

/* @dir_fd: what the address needs until it has been used. */
static int address_of(const char *path, struct sockaddr_un *address, int *dir_fd)
{
	const char *slash = strrchr(path, '/');
	_auto_free char *dir = NULL;
	int len;

	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) < sizeof(address->sun_path)) {
		strcpy(address->sun_path, path);
		return 0;
	}
	if (!slash)
		return -ENAMETOOLONG;
	dir = str_printf("%.*s", (int)(slash - path), path);
	*dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*dir_fd < 0)
		return -errno;
	len = snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d%s", *dir_fd,
		       slash);
	return len < (int)sizeof(address->sun_path) ? 0 : -ENAMETOOLONG;
}

static int bind_at(int fd, const char *path)
{
	struct sockaddr_un address;
	_auto_fd int dir_fd = -1;
	int ret = address_of(path, &address, &dir_fd);

	if (ret)
		return ret;
	return bind(fd, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
}

int unixsock_listen(const char *path, int backlog, struct pil_err *err)
{
	_auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ret;

	if (fd < 0)
		return pil_err_set(err, errno, "listen on '%s'", path);
	unlink(path);
	ret = bind_at(fd, path);
	if (!ret && listen(fd, backlog))
		ret = -errno;
	return ret ? pil_err_set(err, -ret, "listen on '%s'", path) : pil_take_fd(&fd);
}

int unixsock_listen_as(const char *path, int type, mode_t mode, struct pil_err *err)
{
	_auto_free char *tmp = str_printf("%s.new", path);
	_auto_fd int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	mode_t mask;
	int ret;

	if (fd < 0)
		return pil_err_set(err, errno, "listen on '%s'", path);
	unlink(tmp);
	mask = umask(0777 & ~mode);
	ret = bind_at(fd, tmp);
	umask(mask);
	if (!ret && (listen(fd, SOMAXCONN) || rename(tmp, path)))
		ret = -errno;
	if (ret)
		unlink(tmp);
	return ret ? pil_err_set(err, -ret, "listen on '%s'", path) : pil_take_fd(&fd);
}

int unixsock_connect_as(const char *path, int type)
{
	const struct timeval bound = {.tv_sec = CONNECT_S}, none = {0};
	struct sockaddr_un address;
	_auto_fd int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	_auto_fd int dir_fd = -1;
	int ret;

	if (fd < 0)
		return -errno;
	ret = address_of(path, &address, &dir_fd);
	if (ret)
		return ret;
	queued_fds_refuse(fd);                                          /* where it can be said */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound)); /* a full backlog blocks */
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
	return pil_take_fd(&fd);
}

int unixsock_connect(const char *path)
{
	return unixsock_connect_as(path, SOCK_STREAM);
}
