/* SPDX-License-Identifier: Apache-2.0
 *
 * What a guest may announce to pillion-forward, in pieces: the first byte says how long these are.
 * Whatever it says, few enough ports are listened on, each once, none of them a service's, and at
 * localhost only.  In a network of its own, where ports are free. */
#include <arpa/inet.h>
#include <assert.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/agent.h"
#include "machine/forward_host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

enum { FIRST_PORT = 1024, MAX_FDS = 256, MAX_PIECES = 200 };

/* Where that is not allowed, the host's ports are tried. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd;

	(void)argc, (void)argv;
	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
		return 0;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo))
		abort();
	close(fd);
	return 0;
}

/* The port that @fd listens on, at localhost's address of @family; 0: it does not. */
static uint16_t listening_port(int fd, int family)
{
	struct sockaddr_in6 address = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)&address;
	socklen_t len = sizeof(address);
	int listening = 0;
	socklen_t n = sizeof(listening);

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) || !listening)
		return 0;
	assert(!getsockname(fd, (struct sockaddr *)&address, &len));
	assert(address.sin6_family == AF_INET || address.sin6_family == AF_INET6);
	if (address.sin6_family != family)
		return 0;
	if (family == AF_INET6) {
		assert(IN6_IS_ADDR_LOOPBACK(&address.sin6_addr));
		return ntohs(address.sin6_port);
	}
	assert(family == AF_INET && in->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	return ntohs(in->sin_port);
}

/* Looks at what the forwarder has opened for @family. */
static void check_ports(int first_fd, int family)
{
	static bool seen[1 << 16];
	unsigned n = 0;

	memset(seen, 0, sizeof(seen));
	for (int fd = first_fd; fd < first_fd + MAX_FDS; fd++) {
		uint16_t port = listening_port(fd, family);

		if (!port)
			continue;
		assert(port >= FIRST_PORT && !seen[port]);
		seen[port] = true;
		n++;
	}
	assert(n <= AGENT_MAX_PORTS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int pair[2], first_fd;

	if (size < 2)
		return 0;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		abort();
	for (size_t at = 1, n = 0; at < size && n < MAX_PIECES; n++) {
		size_t len = 1 + (data[0] + n) % 150;

		len = len < size - at ? len : size - at;
		if (send(pair[1], data + at, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			break;
		at += len;
	}
	close(pair[1]);
	first_fd = dup(pair[0]);
	close(first_fd);
	forward_host_run(pair[0], "/nowhere");
	check_ports(first_fd, AF_INET);
	check_ports(first_fd, AF_INET6);
	if (close_range((unsigned)first_fd, (unsigned)first_fd + MAX_FDS, 0)) /* as its end would */
		abort();
	close(pair[0]);
	return 0;
}
