/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: once a second the kernel is asked which ports are listened on (listeners.h);
 * when they have changed they are announced.  A connection of the host's begins with the port it
 * is for; a process of its own joins it to that port, so that the first process never waits for
 * anybody. */
#include "guest/init/forward.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/relay.h"
#include "guest/init/listeners.h"

enum { SCAN_MS = 1000 };

static struct forward {
	struct loop *loop;
	struct loop_source listener;
	struct loop_timer scan;
	int announce_fd;
	uint16_t ports[AGENT_MAX_PORTS]; /* as announced */
	unsigned n;
} forward;

/* ---- what is listened on ---- */

/* False: the host takes no more announcements. */
static bool announce(const uint16_t *ports, unsigned n)
{
	uint16_t message[1 + AGENT_MAX_PORTS] = {(uint16_t)n};
	size_t len = (1 + n) * sizeof(*message);
	ssize_t sent;

	memcpy(message + 1, ports, n * sizeof(*ports));
	sent = write(forward.announce_fd, message, len);
	if (sent < 0 && errno == EAGAIN) /* it is stopped, perhaps: with the next look */
		return true;
	if (sent != (ssize_t)len)
		return false;
	memcpy(forward.ports, ports, n * sizeof(*ports));
	forward.n = n;
	return true;
}

static void scan_expired(struct loop_timer *timer)
{
	uint16_t ports[AGENT_MAX_PORTS];
	unsigned n = listeners_find(ports);
	bool wanted = true;

	if (n != forward.n || memcmp(ports, forward.ports, n * sizeof(*ports)) != 0)
		wanted = announce(ports, n);
	if (wanted)
		loop_timer_arm(forward.loop, timer, SCAN_MS);
	else
		pil_close_p(&forward.announce_fd);
}

/* ---- connections ---- */

static int connect_to(const struct sockaddr *address, socklen_t len)
{
	_auto_fd int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && connect(fd, address, len) == 0 ? pil_take_fd(&fd) : -1;
}

static int connect_local(uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
				   .sin6_port = htons(port),
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = connect_to((struct sockaddr *)&in, sizeof(in));

	return fd >= 0 ? fd : connect_to((struct sockaddr *)&in6, sizeof(in6));
}

static void serve(int fd)
{
	sigset_t none;
	uint16_t port;
	int local;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL); /* the machine's end ends us */
	if (dup2(fd, STDIN_FILENO) != STDIN_FILENO)
		return;
	pil_close_from(3);
	if (pil_read_all(STDIN_FILENO, &port, sizeof(port)))
		return;
	local = connect_local(port);
	if (local >= 0)
		relay_run(STDIN_FILENO, local);
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	_auto_fd int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	if (fd < 0 || fork() != 0) /* reaped with the orphans */
		return;
	serve(fd);
	_exit(0);
}

int forward_begin(struct loop *loop, int listen_fd, int announce_fd)
{
	forward = (struct forward){
		.loop = loop,
		.listener = {.fd = listen_fd, .ready = listener_ready},
		.scan.expired = scan_expired,
		.announce_fd = announce_fd,
	};
	pil_set_nonblock(listen_fd, true);
	pil_set_nonblock(announce_fd, true);
	fcntl(listen_fd, F_SETFD, FD_CLOEXEC);
	loop_timer_arm(loop, &forward.scan, SCAN_MS);
	return loop_add(loop, &forward.listener, EPOLLIN);
}
