/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the kernel shows of a process that sleeps in a system call which one, and
 * its arguments (/proc/PID/syscall).  A read of a terminal names its descriptor; poll, select and
 * epoll name sets of them, which are read from the process's memory or its fdinfo.  All this is the
 * guest's and may be wrong: the worst is that keys are asked for that nobody wants, or not asked
 * for.
 *
 * A program may keep its sets in memory that comes from a file system of its own (FUSE), which
 * never answers.  So a child looks, with DEADLINE_MS to do it in.  While one is stuck nobody looks.
 *
 * The numbers of system calls are those of this machine's 64-bit programs; 32-bit programs count as
 * waiting whenever they sleep in a call of theirs that has the number of one of these. */
#include "guest/init/asker.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

enum {
	DEADLINE_MS = 100,
	MAX_POLLED = 256,
	MAX_STAT = 1024,
	MAX_FDINFO = 16 << 10,
	MAX_LOOKED_AT = 4096
};

static ssize_t read_memory(pid_t pid, uint64_t at, void *to, size_t len)
{
	_auto_free char *path = str_printf("/proc/%d/mem", pid);
	_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || at > INT64_MAX ? -1 : pread(fd, to, len, (off_t)at);
}

struct look {
	pid_t pid;
	bool (*is_tty)(pid_t pid, int fd, void *arg);
	void *arg;
};

static bool polls(const struct look *l, uint64_t at, uint64_t n)
{
	struct pollfd fds[MAX_POLLED] = {0};
	size_t len = (n < MAX_POLLED ? n : MAX_POLLED) * sizeof(*fds);

	if (read_memory(l->pid, at, fds, len) != (ssize_t)len)
		return false;
	for (size_t i = 0; i < len / sizeof(*fds); i++)
		if (fds[i].fd >= 0 && fds[i].events & POLLIN &&
		    l->is_tty(l->pid, fds[i].fd, l->arg))
			return true;
	return false;
}

static bool selects(const struct look *l, uint64_t n, uint64_t at)
{
	unsigned long words[FD_SETSIZE / (8 * sizeof(unsigned long))] = {0};
	const size_t bits = 8 * sizeof(words[0]);
	size_t count = n < FD_SETSIZE ? n : FD_SETSIZE;
	size_t len = (count + bits - 1) / bits * sizeof(words[0]);

	if (!at || read_memory(l->pid, at, words, len) != (ssize_t)len)
		return false;
	for (size_t fd = 0; fd < count; fd++)
		if (words[fd / bits] >> (fd % bits) & 1 && l->is_tty(l->pid, (int)fd, l->arg))
			return true;
	return false;
}

static bool epolls(const struct look *l, uint64_t epoll_fd)
{
	_auto_free char *path =
		str_printf("/proc/%d/fdinfo/%d", l->pid, (int)(epoll_fd & INT32_MAX));
	_auto_free char *text = NULL;
	char *save = NULL;

	if (pil_read_file(path, MAX_FDINFO, &text) < 0)
		return false;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		unsigned events;
		int fd;

		if (sscanf(line, "tfd: %d events: %x", &fd, &events) == 2 && events & POLLIN &&
		    l->is_tty(l->pid, fd, l->arg))
			return true;
	}
	return false;
}

bool asker_waits(pid_t pid, const char *text, bool (*is_tty)(pid_t pid, int fd, void *arg),
		 void *arg)
{
	const struct look look = {pid, is_tty, arg};
	unsigned long long a[3];
	long nr;

	if (sscanf(text, "%ld %llx %llx %llx", &nr, &a[0], &a[1], &a[2]) != 4)
		return false; /* it runs */
	switch (nr) {
	case SYS_read:
	case SYS_readv:
		return a[0] <= INT32_MAX && is_tty(pid, (int)a[0], arg);
#ifdef SYS_poll
	case SYS_poll:
#endif
	case SYS_ppoll:
		return polls(&look, a[0], a[1]);
#ifdef SYS_select
	case SYS_select:
#endif
	case SYS_pselect6:
		return selects(&look, a[0], a[1]);
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
#endif
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		return epolls(&look, a[0]);
	default:
		return false;
	}
}

/* /dev/tty is the controlling terminal, too. */
static bool is_terminal(pid_t pid, int fd, void *arg)
{
	_auto_free char *path = str_printf("/proc/%d/fd/%d", pid, fd);
	const dev_t *tty = arg;
	struct stat st;

	return stat(path, &st) == 0 && S_ISCHR(st.st_mode) &&
	       (st.st_rdev == *tty || st.st_rdev == makedev(5, 0));
}

/* Of /proc/PID/stat: the terminal, as the kernel numbers it there, and whether the process may read
 * from it.  What stands before is a name, which may have anything in it. */
static bool has_terminal(const char *text, dev_t tty)
{
	const char *rest = strrchr(text, ')');
	int group, foreground, number;
	dev_t found;

	if (!rest || sscanf(rest + 1, " %*c %*d %d %*d %d %d", &group, &number, &foreground) != 3)
		return false;
	found = makedev((unsigned)number >> 8 & 0xfff,
			((unsigned)number & 0xff) | ((unsigned)number >> 12 & 0xfff00));
	return found == tty && group == foreground;
}

static enum asker look(dev_t tty)
{
	DIR *dir = opendir("/proc");
	enum asker result = ASKER_NONE;
	int looked_at = 0;

	for (struct dirent *e = dir ? readdir(dir) : NULL; e && result == ASKER_NONE;
	     e = readdir(dir)) {
		_auto_free char *stat_path = str_printf("/proc/%.20s/stat", e->d_name);
		_auto_free char *call_path = str_printf("/proc/%.20s/syscall", e->d_name);
		_auto_free char *stat_text = NULL;
		_auto_free char *call = NULL;
		uint64_t pid;

		if (!str_to_u64(e->d_name, INT32_MAX, &pid) || looked_at++ > MAX_LOOKED_AT ||
		    pil_read_file(stat_path, MAX_STAT, &stat_text) < 0 ||
		    !has_terminal(stat_text, tty))
			continue;
		if (pil_read_file(call_path, MAX_STAT, &call) < 0)
			result = access(call_path, F_OK) && !access(stat_path, F_OK) ? ASKER_UNKNOWN
										     : ASKER_NONE;
		else if (asker_waits((pid_t)pid, call, is_terminal, &tty))
			result = ASKER_WAITS;
	}
	if (dir)
		closedir(dir);
	return result;
}

/* What @child finds, which writes it to @fd. */
static enum asker wait_for(pid_t child, int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	unsigned char result;

	if (poll(&p, 1, DEADLINE_MS) == 1 && read(fd, &result, 1) == 1)
		return (enum asker)result;
	kill(child, SIGKILL);
	return ASKER_UNKNOWN;
}

enum asker asker_find(dev_t tty)
{
	static pid_t last; /* that looked; 0: it has ended */
	enum asker result;
	int fds[2];

	if (last && waitpid(last, NULL, WNOHANG) == 0)
		return ASKER_UNKNOWN;
	last = 0;
	if (pipe2(fds, O_CLOEXEC))
		return ASKER_UNKNOWN;
	last = fork();
	if (last == 0) {
		unsigned char found = (unsigned char)look(tty);

		_exit(write(fds[1], &found, 1) != 1);
	}
	close(fds[1]);
	result = last < 0 ? ASKER_UNKNOWN : wait_for(last, fds[0]);
	close(fds[0]);
	if (last < 0)
		last = 0;
	return result;
}
