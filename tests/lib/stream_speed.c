/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast bytes go over a stream socket, between two computers or in one.  Static, so that it runs
 * in any guest.
 *
 *	stream_speed serve ADDRESS                 answers clients until it is killed
 *	stream_speed rtt ADDRESS [SECONDS [BYTES]] round trips, one at a time; microseconds each
 *	stream_speed send ADDRESS [SECONDS]        to the server; MB/s that arrived
 *	stream_speed recv ADDRESS [SECONDS]        from it
 *
 * ADDRESS: unix:PATH or vsock:CID:PORT.  Prints one number. */
#include <linux/vm_sockets.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BULK = 256 << 10, MAX_BYTES = 64 << 10, BATCHES = 5 };

union address {
	struct sockaddr any;
	struct sockaddr_un un;
	struct sockaddr_vm vm;
};

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int make_socket(const char *text, union address *a, socklen_t *len)
{
	unsigned cid, port;
	int fd;

	memset(a, 0, sizeof(*a));
	if (strncmp(text, "unix:", 5) == 0) {
		a->un.sun_family = AF_UNIX;
		snprintf(a->un.sun_path, sizeof(a->un.sun_path), "%s", text + 5);
		*len = sizeof(a->un);
	} else if (sscanf(text, "vsock:%u:%u", &cid, &port) == 2) {
		a->vm.svm_family = AF_VSOCK;
		a->vm.svm_cid = cid;
		a->vm.svm_port = port;
		*len = sizeof(a->vm);
	} else {
		fprintf(stderr, "address '%s': unix:PATH or vsock:CID:PORT\n", text);
		exit(2);
	}
	fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		fail("socket");
	return fd;
}

static void read_all(int fd, void *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read(fd, (char *)buf + done, len - done);

		if (n <= 0)
			fail("read");
		done += (size_t)n;
	}
}

/* ---- the server: the first byte says what the client wants */

static void *serve_one(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char *buf = calloc(1, BULK), what = 0;
	uint64_t sum = 0;
	ssize_t n = read(fd, &what, 1);

	while (n > 0) {
		n = what == 'g' ? send(fd, buf, BULK, MSG_NOSIGNAL) : read(fd, buf, BULK);
		if (n > 0 && what == 'e')
			n = send(fd, buf, (size_t)n, MSG_NOSIGNAL);
		sum += n > 0 ? (uint64_t)n : 0;
	}
	if (what == 's' && send(fd, &sum, sizeof(sum), MSG_NOSIGNAL) < 0)
		perror("send");
	free(buf);
	close(fd);
	return NULL;
}

static void serve(const char *address)
{
	union address a;
	socklen_t len;
	int fd = make_socket(address, &a, &len);

	if (a.any.sa_family == AF_UNIX)
		unlink(a.un.sun_path);
	if (bind(fd, &a.any, len) || listen(fd, 16))
		fail(address);
	for (;;) {
		int client = accept(fd, NULL, NULL);
		pthread_t thread;

		if (client >= 0 &&
		    pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)client) == 0)
			pthread_detach(thread);
	}
}

/* ---- the clients */

/* The median of a few batches: one disturbance does not count. */
static double round_trips(int fd, double seconds, size_t bytes)
{
	static char buf[MAX_BYTES];
	double best[BATCHES];

	for (int i = 0; i < BATCHES; i++) {
		double start = now(), end = start;
		unsigned n = 0;

		for (; end - start < seconds / BATCHES; n++) {
			if (write(fd, buf, bytes) != (ssize_t)bytes)
				fail("write");
			read_all(fd, buf, bytes);
			end = now();
		}
		best[i] = (end - start) / n * 1e6;
	}
	for (int i = 1; i < BATCHES; i++)
		for (int k = i; k > 0 && best[k] < best[k - 1]; k--) {
			double t = best[k];

			best[k] = best[k - 1];
			best[k - 1] = t;
		}
	return best[BATCHES / 2];
}

static double bulk(int fd, bool sending, double seconds)
{
	char *buf = calloc(1, BULK);
	double start = now(), end = start;
	uint64_t sum = 0;

	for (; end - start < seconds; end = now()) {
		ssize_t n = sending ? write(fd, buf, BULK) : read(fd, buf, BULK);

		if (n <= 0)
			fail("bulk");
		sum += (uint64_t)n;
	}
	if (sending) { /* until the last byte has arrived */
		uint64_t arrived;

		shutdown(fd, SHUT_WR);
		read_all(fd, &arrived, sizeof(arrived));
		end = now();
		if (arrived != sum) {
			fprintf(stderr, "%llu bytes sent, %llu arrived\n", (unsigned long long)sum,
				(unsigned long long)arrived);
			exit(1);
		}
	}
	free(buf);
	return (double)sum / (end - start) / 1e6;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		char what;
	} clients[] = {{"rtt", 'e'}, {"send", 's'}, {"recv", 'g'}};
	double seconds = argc > 3 ? atof(argv[3]) : 1;
	size_t bytes = argc > 4 ? strtoul(argv[4], NULL, 10) : 64;
	union address a;
	socklen_t len;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		serve(argv[2]);
	for (size_t i = 0; argc > 2 && i < sizeof(clients) / sizeof(clients[0]); i++) {
		int fd;

		if (strcmp(argv[1], clients[i].name))
			continue;
		fd = make_socket(argv[2], &a, &len);
		if (connect(fd, &a.any, len))
			fail(argv[2]);
		if (write(fd, &clients[i].what, 1) != 1)
			fail("write");
		if (i == 0)
			printf("%.1f\n",
			       round_trips(fd, seconds, bytes && bytes < MAX_BYTES ? bytes : 64));
		else
			printf("%.1f\n", bulk(fd, i == 1, seconds));
		return 0;
	}
	fprintf(stderr, "usage: stream_speed serve|rtt|send|recv ADDRESS [SECONDS [BYTES]]\n");
	return 2;
}
