/* SPDX-License-Identifier: Apache-2.0
 *
 * The host's half of bench/vmm's vsock figures:
 *
 *	bench_vsock_host vsock          listens on vsock ports 5000 to 5002
 *	bench_vsock_host FOLDER         listens on FOLDER/5000 to FOLDER/5002
 *
 * 5000 sends back what comes, 5001 takes all and answers with one byte at its end, 5002 sends. */
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

enum { ECHO_PORT = 5000, N_PORTS = 3, CHUNK_BYTES = 64 << 10 };

static int listen_on(const char *where, unsigned port)
{
	struct sockaddr_vm vm = {.svm_family = AF_VSOCK,
				 .svm_cid = VMADDR_CID_ANY,
				 .svm_port = port};
	struct sockaddr_un path = {.sun_family = AF_UNIX};
	bool vsock = !strcmp(where, "vsock");
	int fd = socket(vsock ? AF_VSOCK : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(path.sun_path, sizeof(path.sun_path), "%s/%u", where, port);
	unlink(path.sun_path);
	if (fd < 0 ||
	    bind(fd, vsock ? (struct sockaddr *)&vm : (struct sockaddr *)&path,
		 vsock ? sizeof(vm) : sizeof(path)) ||
	    listen(fd, 4)) {
		perror(where);
		exit(1);
	}
	return fd;
}

static void serve(int fd, unsigned what)
{
	static char chunk[CHUNK_BYTES];
	ssize_t n;

	switch (what) {
	case 0:
		while ((n = read(fd, chunk, sizeof(chunk))) > 0)
			if (write(fd, chunk, (size_t)n) != n)
				break;
		break;
	case 1:
		while (read(fd, chunk, sizeof(chunk)) > 0)
			;
		if (write(fd, "", 1) != 1)
			perror("answer");
		break;
	default:
		while (send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL) > 0)
			;
	}
	close(fd);
}

int main(int argc, char **argv)
{
	struct pollfd p[N_PORTS];

	if (argc != 2)
		return 2;
	for (unsigned i = 0; i < N_PORTS; i++)
		p[i] = (struct pollfd){.fd = listen_on(argv[1], ECHO_PORT + i), .events = POLLIN};
	while (poll(p, N_PORTS, 120000) > 0) /* nobody for two minutes: over */
		for (unsigned i = 0; i < N_PORTS; i++)
			if (p[i].revents) {
				int fd = accept(p[i].fd, NULL, NULL);

				if (fd >= 0)
					serve(fd, i);
			}
	return 0;
}
