/* SPDX-License-Identifier: Apache-2.0 */
#include "unixsock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd.h"

enum { CONNECT_S = 10 };

static int make(const char *path, struct sockaddr_un *address)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(address->sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address->sun_path, path);
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

int unixsock_listen(const char *path, int backlog, struct pil_err *err)
{
	struct sockaddr_un address;
	_auto_fd int fd = make(path, &address);

	if (fd >= 0)
		unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, backlog))
		return pil_err_set(err, errno, "listen on '%s'", path);
	return pil_take_fd(&fd);
}

int unixsock_connect(const char *path)
{
	const struct timeval bound = {.tv_sec = CONNECT_S}, none = {0};
	struct sockaddr_un address;
	_auto_fd int fd = make(path, &address);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound)); /* a full backlog blocks */
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &none, sizeof(none));
	return pil_take_fd(&fd);
}
