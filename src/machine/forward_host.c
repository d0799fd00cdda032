/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: one process, and one more per connection, so that nobody waits for another's
 * stream.  All end with the supervisor.
 *
 * What the guest says is only which numbers it would like: at most AGENT_MAX_PORTS of them, none
 * below FIRST_PORT (a service of the host's that restarts must find its port free), none that
 * something on the host listens on, and only at 127.0.0.1.  A port that is taken is tried again
 * every RETRY_MS. */
#include "forward_host.h"

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

#include "agent.h"
#include "fd.h"
#include "log.h"
#include "proc.h"
#include "relay.h"
#include "state.h"
#include "unixsock.h"

enum { FIRST_PORT = 1024, RETRY_MS = 2000, MAX_CONNECTIONS = 512 };

struct port {
	uint16_t number;
	int fd; /* < 0: taken by somebody else */
};

struct forwarder {
	const char *path; /* of the way to the guest */
	struct port ports[AGENT_MAX_PORTS];
	unsigned n_ports;
	unsigned n_connections;
	uint16_t list[1 + AGENT_MAX_PORTS]; /* the guest's next one, as far as it has come */
	size_t list_bytes;
};

static int listen_local(uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	_auto_fd int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&in, sizeof(in)) || listen(fd, 64))
		return -errno;
	return pil_take_fd(&fd);
}

/* The descriptor that listens on @number already; it is taken out of @f.  -1: none does. */
static int take_listening(struct forwarder *f, uint16_t number)
{
	for (unsigned i = 0; i < f->n_ports; i++)
		if (f->ports[i].number == number)
			return pil_take_fd(&f->ports[i].fd);
	return -1;
}

static bool is_among(const struct port *ports, unsigned n, uint16_t number)
{
	for (unsigned i = 0; i < n; i++)
		if (ports[i].number == number)
			return true;
	return false;
}

static void take_ports(struct forwarder *f)
{
	struct port next[AGENT_MAX_PORTS];
	unsigned n_next = 0;

	for (unsigned i = 1; i <= f->list[0]; i++) {
		uint16_t number = f->list[i];

		if (number >= FIRST_PORT && !is_among(next, n_next, number))
			next[n_next++] = (struct port){number, take_listening(f, number)};
	}
	for (unsigned i = 0; i < f->n_ports; i++)
		pil_close_p(&f->ports[i].fd);
	memcpy(f->ports, next, n_next * sizeof(*next));
	f->n_ports = n_next;
}

/* Some more of the guest's next list, when poll() says that there is some.  False: the machine is
 * over, or does not keep to the protocol. */
static bool read_list(struct forwarder *f, int announce_fd)
{
	size_t want = f->list_bytes < sizeof(f->list[0]) ? sizeof(f->list[0])
							 : sizeof(f->list[0]) * (1u + f->list[0]);
	ssize_t n = read(announce_fd, (char *)f->list + f->list_bytes, want - f->list_bytes);

	if (n <= 0)
		return n < 0 && errno == EINTR;
	f->list_bytes += (size_t)n;
	if (f->list_bytes < sizeof(f->list[0]))
		return true;
	if (f->list[0] > AGENT_MAX_PORTS)
		return false;
	if (f->list_bytes == sizeof(f->list[0]) * (1u + f->list[0])) {
		take_ports(f);
		f->list_bytes = 0;
	}
	return true;
}

/* False: a port is still taken. */
static bool listen_missing(struct forwarder *f)
{
	bool all = true;

	for (unsigned i = 0; i < f->n_ports; i++) {
		if (f->ports[i].fd < 0)
			f->ports[i].fd = listen_local(f->ports[i].number);
		all = all && f->ports[i].fd >= 0;
	}
	return all;
}

/* A process ends with the parent, and keeps none of its descriptors but the one it is for: a port
 * that somebody still held would stay taken.  Returns whether that worked. */
static bool keep_only(int fd, pid_t parent)
{
	return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent &&
	       dup2(fd, STDIN_FILENO) == STDIN_FILENO && close_range(3, ~0u, 0) == 0;
}

static void join(int fd, uint16_t port, const char *path, pid_t parent)
{
	int guest = keep_only(fd, parent) ? unixsock_connect(path) : -1;

	if (guest >= 0 && pil_write_all(guest, &port, sizeof(port)) == 0)
		relay_run(STDIN_FILENO, guest);
}

static void serve(struct forwarder *f, const struct port *port)
{
	_auto_fd int fd = accept4(port->fd, NULL, NULL, SOCK_CLOEXEC);
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
	struct forwarder f = {.path = path};

	for (;;) {
		struct pollfd p[1 + AGENT_MAX_PORTS] = {{.fd = announce_fd, .events = POLLIN}};
		bool all = listen_missing(&f);

		for (unsigned i = 0; i < f.n_ports; i++)
			p[1 + i] = (struct pollfd){.fd = f.ports[i].fd, .events = POLLIN};
		if (poll(p, 1 + f.n_ports, all ? -1 : RETRY_MS) < 0)
			continue;
		for (unsigned i = 0; i < f.n_ports; i++)
			if (p[1 + i].revents)
				serve(&f, &f.ports[i]);
		if (p[0].revents && !read_list(&f, announce_fd))
			return;
	}
}

pid_t forward_host_start(int announce_fd, const char *path, struct pil_err *err)
{
	_auto_free char *program = state_find_program("machine", "pillion-forward", err);
	char *const argv[] = {program, (char *)path, NULL};
	struct proc_opts opts = {.stdin_fd = announce_fd,
				 .stdout_fd = STDERR_FILENO, /* stdout is the supervisor's own */
				 .stderr_fd = STDERR_FILENO,
				 .die_with_us = true};

	if (!program)
		return -ENOENT;
	return proc_spawn(argv, &opts, err);
}
