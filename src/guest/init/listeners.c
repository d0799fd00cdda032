/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: sock_diag(7) is asked for listening sockets alone, which the kernel keeps in
 * a list of their own.  /proc/net/tcp walks its table of all connections to find them, which has a
 * place for each 128 KiB of the host's memory: 10 ms of a processor per look on a host of 24 GiB.
 * It serves where a kernel lacks sock_diag (Debian's has it as a module, which a microVM's
 * initramfs leaves out; its table is small). */
#include "guest/init/listeners.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>

#include "base/fd.h"

enum { MAX_LIST_BYTES = 1 << 20, MAX_ANSWERS = 64, ANSWER_MS = 1000, TCP_LISTENING = 0x0a };

static unsigned add_port(uint16_t port, uint16_t *ports, unsigned n)
{
	unsigned i = 0;

	while (i < n && ports[i] < port)
		i++;
	if (!port || (i < n && ports[i] == port) || n == AGENT_MAX_PORTS)
		return n;
	memmove(ports + i + 1, ports + i, (n - i) * sizeof(*ports));
	ports[i] = port;
	return n + 1;
}

/* ---- sock_diag ---- */

/* Any address or localhost, IPv4 or IPv6. */
static bool reachable(const struct inet_diag_msg *m)
{
	const uint32_t *a = m->id.idiag_src;
	uint32_t v4 = m->idiag_family == AF_INET ? a[0] : a[3];

	if (m->idiag_family == AF_INET || (!a[0] && !a[1] && a[2] == htonl(0xffff)))
		return v4 == htonl(INADDR_ANY) || v4 == htonl(INADDR_LOOPBACK);
	return !a[0] && !a[1] && !a[2] && (!v4 || v4 == htonl(1));
}

unsigned listeners_parse_diag(const void *answer, uint32_t len, uint16_t *ports, unsigned n,
			      int *end)
{
	const uint8_t *p = answer;

	*end = 0;
	while (len >= sizeof(struct nlmsghdr)) {
		struct nlmsghdr h;
		struct inet_diag_msg m;
		uint32_t step;

		memcpy(&h, p, sizeof(h));
		if (h.nlmsg_len < sizeof(h) || h.nlmsg_len > len)
			break;
		if (h.nlmsg_type == NLMSG_DONE || h.nlmsg_type == NLMSG_ERROR) {
			*end = h.nlmsg_type == NLMSG_DONE ? 1 : -1;
			break;
		}
		if (h.nlmsg_len >= sizeof(h) + sizeof(m)) {
			memcpy(&m, p + sizeof(h), sizeof(m));
			if (m.idiag_state == TCP_LISTENING && reachable(&m))
				n = add_port(ntohs(m.id.idiag_sport), ports, n);
		}
		step = NLMSG_ALIGN(h.nlmsg_len);
		if (step >= len)
			break;
		p += step;
		len -= step;
	}
	return n;
}

static bool ask(int fd, uint8_t family)
{
	struct {
		struct nlmsghdr h;
		struct inet_diag_req_v2 r;
	} question = {
		.h = {.nlmsg_len = sizeof(question),
		      .nlmsg_type = SOCK_DIAG_BY_FAMILY,
		      .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
		.r = {.sdiag_family = family,
		      .sdiag_protocol = IPPROTO_TCP,
		      .idiag_states = 1u << TCP_LISTENING},
	};

	return send(fd, &question, sizeof(question), 0) == sizeof(question);
}

/* False: this kernel does not answer, or not all. */
static bool find_by_diag(uint16_t *ports, unsigned *n)
{
	static const uint8_t families[] = {AF_INET, AF_INET6};
	struct timeval limit = {.tv_sec = ANSWER_MS / 1000};
	_auto_fd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	uint8_t answer[16384];

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		int end = 0;

		if (!ask(fd, families[i]))
			return false;
		for (int a = 0; a < MAX_ANSWERS && !end; a++) {
			ssize_t len = recv(fd, answer, sizeof(answer), 0);

			if (len <= 0)
				return false;
			*n = listeners_parse_diag(answer, (uint32_t)len, ports, *n, &end);
		}
		if (end < 0)
			return false;
	}
	return true;
}

/* ---- /proc/net ---- */

/* The same as reachable(), as the kernel prints addresses: in words of the host's order. */
static bool text_reachable(const char *address)
{
	static const char *const local[] = {
		"00000000",
		"0100007F",
		"00000000000000000000000000000000",
		"00000000000000000000000001000000",
		"0000000000000000FFFF00000100007F",
	};

	for (size_t i = 0; i < ARRAY_SIZE(local); i++)
		if (!strcmp(address, local[i]))
			return true;
	return false;
}

unsigned listeners_parse_text(const char *text, uint16_t *ports, unsigned n)
{
	const char *end;

	for (const char *line = text; line; line = end ? end + 1 : NULL) {
		char address[33];
		unsigned port, state;

		end = strchr(line, '\n');
		if (sscanf(line, "%*u: %32[0-9A-F]:%4x %*32[0-9A-F]:%*4x %2x", address, &port,
			   &state) == 3 &&
		    state == TCP_LISTENING && text_reachable(address))
			n = add_port((uint16_t)port, ports, n);
	}
	return n;
}

static unsigned find_by_text(uint16_t *ports)
{
	static const char *const lists[] = {"/proc/net/tcp", "/proc/net/tcp6"};
	unsigned n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		_auto_free char *text = NULL;

		if (pil_read_file(lists[i], MAX_LIST_BYTES, &text) > 0)
			n = listeners_parse_text(text, ports, n);
	}
	return n;
}

unsigned listeners_find(uint16_t ports[AGENT_MAX_PORTS])
{
	static bool no_diag; /* asking makes a kernel look for its module: once is enough */
	unsigned n = 0;

	if (!no_diag && find_by_diag(ports, &n))
		return n;
	no_diag = true;
	return find_by_text(ports);
}
