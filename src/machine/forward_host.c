/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: one process, and one more per connection, so that nobody waits for another's
 * stream.  All end with the supervisor.
 *
 * What the guest says is only which numbers it would like: at most AGENT_MAX_PORTS of them, none
 * below FIRST_PORT (a service of the host's that restarts must find its port free), none that
 * something on the host listens on, and only at 127.0.0.1 and ::1.  A port that is taken is tried
 * again every RETRY_MS. */
#include "machine/forward_host.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/relay.h"
#include "base/unixsock.h"
#include "config/state.h"

enum { FIRST_PORT = 1024, RETRY_MS = 2000, MAX_CONNECTIONS = 512 };
enum { IP4, IP6, N_ADDRESSES }; /* of localhost */

struct port {
	uint16_t number;
	int fds[N_ADDRESSES]; /* < 0: taken by somebody else */
};

struct forwarding {
	const char *path; /* of the way to the guest */
	struct port ports[AGENT_MAX_PORTS];
	unsigned n_ports;
	unsigned n_connections;
	struct port_list list; /* the guest's next one */
};

static int listen_at(const struct sockaddr *address, socklen_t len)
{
	_auto_fd int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (address->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, address, len) || listen(fd, 64))
		return -errno;
	return pil_take_fd(&fd);
}

static int listen_local(uint16_t port, int which)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
				   .sin6_port = htons(port),
				   .sin6_addr = IN6ADDR_LOOPBACK_INIT};

	return which == IP4 ? listen_at((struct sockaddr *)&in, sizeof(in))
			    : listen_at((struct sockaddr *)&in6, sizeof(in6));
}

/* The descriptors that listen on @number already; they are taken out of @f. */
static struct port take_listening(struct forwarding *f, uint16_t number)
{
	struct port port = {number, {-1, -1}};

	for (unsigned i = 0; i < f->n_ports; i++)
		for (int which = 0; f->ports[i].number == number && which < N_ADDRESSES; which++)
			port.fds[which] = pil_take_fd(&f->ports[i].fds[which]);
	return port;
}

static bool is_among(const struct port *ports, unsigned n, uint16_t number)
{
	for (unsigned i = 0; i < n; i++)
		if (ports[i].number == number)
			return true;
	return false;
}

static void take_ports(struct forwarding *f)
{
	struct port next[AGENT_MAX_PORTS];
	unsigned n_next = 0;

	for (unsigned i = 1; i <= f->list.words[0]; i++) {
		uint16_t number = f->list.words[i];

		if (number >= FIRST_PORT && !is_among(next, n_next, number))
			next[n_next++] = take_listening(f, number);
	}
	for (unsigned i = 0; i < f->n_ports; i++)
		for (int which = 0; which < N_ADDRESSES; which++)
			pil_close_p(&f->ports[i].fds[which]);
	memcpy(f->ports, next, n_next * sizeof(*next));
	f->n_ports = n_next;
}

enum port_list_state port_list_read(struct port_list *list, int fd)
{
	const size_t word = sizeof(list->words[0]);
	size_t want;
	ssize_t n;

	if (list->bytes >= word && list->bytes == word * (1u + list->words[0]))
		list->bytes = 0;
	want = list->bytes < word ? word : word * (1u + list->words[0]);
	n = read(fd, (char *)list->words + list->bytes, want - list->bytes);
	if (n <= 0)
		return n < 0 && errno == EINTR ? PORT_LIST_PART : PORT_LIST_END;
	list->bytes += (size_t)n;
	if (list->bytes < word)
		return PORT_LIST_PART;
	if (list->words[0] > AGENT_MAX_PORTS)
		return PORT_LIST_END;
	return list->bytes == word * (1u + list->words[0]) ? PORT_LIST_WHOLE : PORT_LIST_PART;
}

/* False: the machine is over. */
static bool read_list(struct forwarding *f, int announce_fd)
{
	enum port_list_state state = port_list_read(&f->list, announce_fd);

	if (state == PORT_LIST_WHOLE)
		take_ports(f);
	return state != PORT_LIST_END;
}

/* False: a port is still taken.  Who has it at 127.0.0.1 has it at ::1, too.  A host without IPv6
 * has no ::1, which nobody can connect to. */
static bool listen_missing(struct forwarding *f)
{
	bool all = true;

	for (unsigned i = 0; i < f->n_ports; i++) {
		for (int which = 0; which < N_ADDRESSES; which++) {
			int *fd = &f->ports[i].fds[which];

			if (*fd < 0 && (which == IP4 || f->ports[i].fds[IP4] >= 0))
				*fd = listen_local(f->ports[i].number, which);
			all = all && (*fd >= 0 || *fd == -EADDRNOTAVAIL || *fd == -EAFNOSUPPORT);
		}
	}
	return all;
}

/* A process ends with the parent, and keeps none of its descriptors but the one it is for: a port
 * that somebody still held would stay taken.  Returns whether that worked. */
static bool keep_only(int fd, pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent ||
	    dup2(fd, STDIN_FILENO) != STDIN_FILENO)
		return false;
	pil_close_from(3);
	return true;
}

static void join(int fd, uint16_t port, const char *path, pid_t parent)
{
	int guest = keep_only(fd, parent) ? unixsock_connect(path) : -1;

	if (guest >= 0 && pil_write_all(guest, &port, sizeof(port)) == 0)
		relay_run(STDIN_FILENO, guest);
}

static void serve(struct forwarding *f, const struct port *port, int listen_fd)
{
	_auto_fd int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	pid_t own = getpid(), pid;

	while (f->n_connections && waitpid(-1, NULL, WNOHANG) > 0)
		f->n_connections--;
	if (fd < 0 || f->n_connections >= MAX_CONNECTIONS)
		return;
	pid = fork();
	if (pid != 0) {
		f->n_connections += pid > 0;
		return;
	}
	join(fd, port->number, f->path, own);
	_exit(0);
}

void forward_host_run(int announce_fd, const char *path)
{
	struct forwarding f = {.path = path};

	for (;;) {
		struct pollfd p[1 + N_ADDRESSES * AGENT_MAX_PORTS] = {
			{.fd = announce_fd, .events = POLLIN}};
		bool all = listen_missing(&f);
		unsigned n = N_ADDRESSES * f.n_ports;

		for (unsigned i = 0; i < n; i++)
			p[1 + i] =
				(struct pollfd){.fd = f.ports[i / N_ADDRESSES].fds[i % N_ADDRESSES],
						.events = POLLIN};
		if (poll(p, 1 + n, all ? -1 : RETRY_MS) < 0)
			continue;
		for (unsigned i = 0; i < n; i++)
			if (p[1 + i].revents)
				serve(&f, &f.ports[i / N_ADDRESSES], p[1 + i].fd);
		if (p[0].revents && !read_list(&f, announce_fd))
			return;
	}
}

pid_t forward_host_start(int announce_fd, const char *path, int say_fd, struct pil_err *err)
{
	_auto_free char *program = state_find_program("machine", "pillion-forward", err);
	char *const argv[] = {program, (char *)path, NULL};
	struct proc_opts opts = {.stdin_fd = announce_fd,
				 .stdout_fd = say_fd,
				 .stderr_fd = say_fd,
				 .die_with_us = true};

	if (!program)
		return -ENOENT;
	return proc_spawn(argv, &opts, err);
}
