/* SPDX-License-Identifier: Apache-2.0
 *
 * descriptors.c -- cases against what the first process of the machine was given: its descriptors,
 * taken by pidfd_getfd(2) or opened again by /proc, and the process itself, stopped by ptrace(2).
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hostile.h"
#include "lingering.h"

enum { MAX_FD = 64, DISK_BYTES = 256 << 20 };

/* Calls @try with each descriptor of the processes of the machine that are not of this program. */
static void for_descriptors(int (*try)(int fd), struct tally *t)
{
	char path[64], what[96];

	for (int pid = 1; pid < 64; pid++) {
		int process = (int)syscall(SYS_pidfd_open, pid, 0);

		if (process < 0 || pid == getppid() || getpgid(pid) == getpgid(0))
			continue;
		for (int n = 0; n < MAX_FD; n++) {
			int fd;

			snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, n);
			fd = (int)syscall(SYS_pidfd_getfd, process, n, 0);
			if (fd < 0 && errno == EBADF)
				continue;
			snprintf(what, sizeof(what), "%s", path);
			if (fd < 0)
				tally_add(t, -errno, what);
			else
				tally_add(t, try(fd), what);
			if (fd >= 0)
				close(fd);
			fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
			if (fd >= 0) {
				tally_add(t, try(fd), what);
				close(fd);
			}
		}
		close(process);
	}
}

/* A file that the machine has no name for: it is not of its own tree. */
static bool of_host(int fd)
{
	struct stat st, own;
	char link[64], path[512];
	ssize_t n;

	if (fstat(fd, &st) || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode)))
		return false;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0)
		return false;
	path[n] = 0;
	return stat(path, &own) || own.st_dev != st.st_dev || own.st_ino != st.st_ino;
}

static int try_allocate(int fd)
{
	int ret;

	if (!of_host(fd))
		return -ENODATA;
	ret = hostile_errno(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, DISK_BYTES));
	if (ret >= 0)
		hostile_errno(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 1 << 20,
					DISK_BYTES - (1 << 20)));
	return ret;
}

static int try_truncate(int fd)
{
	return of_host(fd) ? hostile_errno(ftruncate(fd, 0)) : -ENODATA;
}

static int try_mode(int fd)
{
	struct stat st;

	if (!of_host(fd) || fstat(fd, &st))
		return -ENODATA;
	return hostile_errno(fchmod(fd, st.st_mode & 07777));
}

static int try_flags(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (!of_host(fd))
		return -ENODATA;
	if (fcntl(fd, F_SETFL, flags & ~O_APPEND))
		return -errno;
	return hostile_errno(fcntl(fd, F_SETFL, flags));
}

static int try_folder(int fd)
{
	struct stat st;
	int above = -1;

	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && of_host(fd))
		above = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (above < 0)
		return -ENODATA;
	close(above);
	return 0;
}

static int (*const tries[])(int fd) = {try_allocate, try_truncate, try_mode, try_flags, try_folder};

static int descriptors(const struct hostile_case *c)
{
	struct tally t = {c, SKIPPED};

	for_descriptors(tries[strtol(c->arg, NULL, 10)], &t);
	return tally_result(&t, -ENODATA);
}

/* ---- the log ---- */

static const char forged[] = "\n\033]0;owned\007\033[2Jpillion-machine: forged by the guest\r\n"
			     "pillion-vmm: forged by the guest\n\302\233forged\177\n";

static int try_forge(int fd)
{
	struct stat st;

	if (fstat(fd, &st) || !(S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode)))
		return -ENODATA;
	return hostile_errno(write(fd, forged, sizeof(forged) - 1));
}

static int forge_log(const struct hostile_case *c)
{
	struct tally t = {c, SKIPPED};

	for_descriptors(try_forge, &t);
	return tally_result(&t, -ENODATA);
}

enum { FLOOD_BYTES = 96 << 20, FLOOD_MS = 4000 };

/* As much as it takes, of lines and of one line. */
static int try_flood(int fd)
{
	static char text[1 << 16];
	struct stat st;
	struct timespec start, now;
	long long done = 0;

	if (fstat(fd, &st) || !(S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode)))
		return -ENODATA;
	memset(text, 'x', sizeof(text));
	for (size_t i = 0; i < sizeof(text) / 2; i += 64)
		text[i] = '\n';
	clock_gettime(CLOCK_MONOTONIC, &start);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	do {
		ssize_t n = write(fd, text, sizeof(text));

		if (n < 0)
			usleep(1000);
		else
			done += n;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (done < FLOOD_BYTES &&
		 (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 <
			 FLOOD_MS);
	hostile_note("%lld MiB", done >> 20);
	return 0;
}

static int flood_log(const struct hostile_case *c)
{
	int process = (int)syscall(SYS_pidfd_open, 1, 0);
	int fd = (int)syscall(SYS_pidfd_getfd, process, 2, 0);

	(void)c;
	return fd < 0 ? -errno : try_flood(fd);
}

/* ---- the process ---- */

static int stop_first(const struct hostile_case *c)
{
	int status;

	(void)c;
	if (ptrace(PTRACE_ATTACH, 1, NULL, NULL) || waitpid(1, &status, 0) != 1)
		return -errno;
	hostile_hold();
	return 0;
}

/* The socket on which the command line's connections arrive: a Unix or a vsock one. */
static int take_listener(void)
{
	int process = (int)syscall(SYS_pidfd_open, 1, 0);

	for (int n = 0; n < MAX_FD; n++) {
		int fd = (int)syscall(SYS_pidfd_getfd, process, n, 0);
		struct sockaddr_storage name;
		socklen_t size = sizeof(name), four = sizeof(int);
		int listens = 0;

		if (fd < 0)
			continue;
		/* the other one is for forwarded ports */
		if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &four) == 0 && listens &&
		    getsockname(fd, (struct sockaddr *)&name, &size) == 0 &&
		    (name.ss_family != AF_UNIX ||
		     strstr(((struct sockaddr_un *)&name)->sun_path, "agent")))
			return fd;
		close(fd);
	}
	return -ENODATA;
}

/* The command line's next connection arrives here, and says nothing, or sends what never closes. */
static int impersonate_agent(const struct hostile_case *c)
{
	int status, listener, fd;

	if (ptrace(PTRACE_ATTACH, 1, NULL, NULL) || waitpid(1, &status, 0) != 1)
		return -errno;
	listener = take_listener();
	if (listener < 0)
		return hostile_skip("the first process listens on no socket of this kind");
	fcntl(listener, F_SETFL, 0);
	if (write(STDOUT_FILENO, "holding\n", 8) != 8)
		return -errno;
	fd = accept(listener, NULL, NULL);
	if (fd < 0)
		return -errno;
	for (int i = 0; c->arg && i < 8; i++)
		hostile_send_lingering(fd);
	alarm(30);
	pause();
	return 0;
}

/* Only a file of the host's could be harmed, so there must be none. */
#define NOTHING                                                                                    \
	{                                                                                          \
		ENODATA, EPERM, EACCES, ENOSYS                                                     \
	}

static const struct hostile_case cases[] = {
	{"descriptor_allocate", ON_NS, descriptors, NOTHING, "0"},
	{"descriptor_truncate", ON_NS, descriptors, NOTHING, "1"},
	{"descriptor_mode", ON_NS, descriptors, NOTHING, "2"},
	{"descriptor_flags", ON_NS, descriptors, NOTHING, "3"},
	{"descriptor_folder", ON_NS, descriptors, NOTHING, "4"},
	{"forge_log", ON_NS, forge_log, {0}},
	{"flood_log", ON_NS, flood_log, {0}},
	{"stop_first", ON_NS, stop_first, {0}},
	{"silent_agent", ON_NS, impersonate_agent, {0}},
	{"lingering_agent", ON_NS, impersonate_agent, {0}, "lingering"},
};

const struct hostile_family hostile_descriptors = {cases, ARRAY_SIZE(cases)};
