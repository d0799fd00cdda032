/* SPDX-License-Identifier: Apache-2.0
 *
 * bombs.c -- cases that take all there is of something that the kernel counts, hold it, and let the
 * driver see whether the user's other programs still get theirs.
 *
 * A bomb takes until it gets no more or has reached a bound of its own, so that the tests hurt
 * nobody where a limit is missing.  `--use NAME` is the other side: a little must be left. */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hostile.h"

struct bomb {
	const char *name;
	int (*take)(int n); /* takes one more: 0 or -errno */
	int bound;
	int use; /* what somebody else must still get */
};

static int take_process(int n)
{
	pid_t pid = fork();

	(void)n;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid < 0 ? -errno : 0;
}

static void *sleeper(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static int take_thread(int n)
{
	pthread_attr_t small;
	pthread_t thread;
	int ret;

	(void)n;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 16384);
	ret = -pthread_create(&thread, &small, sleeper, NULL);
	pthread_attr_destroy(&small);
	return ret;
}

/* A child that has made a namespace, and stays. */
static int take_namespace(int flags)
{
	int fds[2], ret = -EIO;
	pid_t pid;

	if (pipe(fds))
		return -errno;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ret = unshare(flags) && unshare(CLONE_NEWUSER | flags) ? -errno : 0;
		if (write(fds[1], &ret, sizeof(ret)) != sizeof(ret) || ret)
			_exit(1);
		for (;;)
			pause();
	}
	close(fds[1]);
	if (pid < 0)
		ret = -errno;
	else if (read(fds[0], &ret, sizeof(ret)) != sizeof(ret))
		ret = -EIO;
	close(fds[0]);
	if (pid > 0 && ret)
		waitpid(pid, NULL, 0);
	return ret;
}

static int take_userns(int n)
{
	(void)n;
	return take_namespace(CLONE_NEWUSER);
}

static int take_netns(int n)
{
	(void)n;
	return take_namespace(CLONE_NEWNET);
}

static int take_mntns(int n)
{
	(void)n;
	return take_namespace(CLONE_NEWNS);
}

static int take_inotify(int n)
{
	(void)n;
	return inotify_init1(IN_CLOEXEC) < 0 ? -errno : 0;
}

static int take_watch(int n)
{
	static int in = -1;
	char path[64];

	if (in < 0)
		in = inotify_init1(IN_CLOEXEC);
	snprintf(path, sizeof(path), "/tmp/watch-%d-%d", getpid(), n);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	if (inotify_add_watch(in, path, IN_MODIFY) < 0)
		return -errno;
	unlink("/tmp/none");
	return 0;
}

/* Each holds an eventfd in one of many sets. */
static int take_epoll(int n)
{
	static int files[512];
	static int set = -1;
	struct epoll_event e = {.events = EPOLLIN};

	if (n < 512) {
		files[n] = eventfd(0, EFD_CLOEXEC);
		if (files[n] < 0)
			return -errno;
	}
	if (n % 512 == 0)
		set = epoll_create1(EPOLL_CLOEXEC);
	return hostile_errno(epoll_ctl(set, EPOLL_CTL_ADD, files[n % 512], &e));
}

static int take_pipe(int n)
{
	int fds[2];

	(void)n;
	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	return fcntl(fds[0], F_SETPIPE_SZ, 1 << 20) < 0 ? -errno : 0;
}

/* As they come: past a number of them the kernel makes them smaller, but makes them. */
static int take_small_pipe(int n)
{
	int fds[2];

	(void)n;
	return pipe2(fds, O_CLOEXEC) ? -errno : 0;
}

static int take_queue(int n)
{
	struct mq_attr a = {.mq_maxmsg = 10, .mq_msgsize = 8192};
	char name[64];

	snprintf(name, sizeof(name), "/hostile-%d-%d", getpid(), n);
	if (mq_open(name, O_CREAT | O_RDWR, 0600, &a) == (mqd_t)-1)
		return -errno;
	mq_unlink(name); /* it is there as long as we are, and no longer */
	return 0;
}

static int take_key(int n)
{
	char name[64];
	static char text[512];

	snprintf(name, sizeof(name), "hostile-%d-%d", getpid(), n);
	return syscall(SYS_add_key, "user", name, text, sizeof(text), KEY_SPEC_PROCESS_KEYRING) < 0
		       ? -errno
		       : 0;
}

static int take_timer(int n)
{
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	timer_t timer;

	(void)n;
	return timer_create(CLOCK_MONOTONIC, &e, &timer) ? -errno : 0;
}

static int take_terminal(int n)
{
	(void)n;
	return posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC) < 0 ? -errno : 0;
}

static int take_locked(int n)
{
	void *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)n;
	return p == MAP_FAILED || mlock(p, 1 << 20) ? -errno : 0;
}

/* Descriptors on their way are counted by user, not by process. */
static int take_in_flight(int n)
{
	static int pair[2] = {-1, -1};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	char c = 0;
	struct iovec iov = {&c, 1};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.bytes,
			   .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&m);
	int zero = 0;

	if (n % 8 == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
		return -errno;
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &zero, sizeof(zero));
	return sendmsg(pair[0], &m, MSG_DONTWAIT) < 0 ? -errno : 0;
}

static const struct bomb bombs[] = {
	{"processes", take_process, 2500, 20},      {"threads", take_thread, 2500, 20},
	{"user_namespaces", take_userns, 400, 1},   {"net_namespaces", take_netns, 60, 1},
	{"mount_namespaces", take_mntns, 400, 1},   {"inotify_instances", take_inotify, 2000, 2},
	{"inotify_watches", take_watch, 20000, 20}, {"epoll_watches", take_epoll, 200000, 100},
	{"pipe_pages", take_pipe, 400, 2},          {"pipes", take_small_pipe, 3000, 20},
	{"message_queues", take_queue, 300, 1},     {"keys", take_key, 400, 5},
	{"timers", take_timer, 100000, 20},         {"terminals", take_terminal, 4200, 2},
	{"locked_memory", take_locked, 512, 1},     {"in_flight", take_in_flight, 60000, 8},
};

static const struct bomb *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(bombs); i++)
		if (!strcmp(bombs[i].name, name))
			return &bombs[i];
	return NULL;
}

static void all_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int hostile_bomb_use(const char *name)
{
	const struct bomb *b = find(name);
	int ret = b ? 0 : -ENOENT;

	all_descriptors();
	for (int i = 0; !ret && i < b->use; i++) {
		ret = b->take(i);
		if (ret)
			printf("%s\trefused\t%s at %d\n", name, strerrorname_np(-ret), i);
	}
	if (!ret)
		printf("%s\tallowed\t0\n", name);
	fflush(stdout);
	kill(0, SIGKILL); /* with the children */
	return 1;
}

/* Whatever the limit is of: a failure that lasts is the end of it. */
static int bomb(const struct hostile_case *c)
{
	const struct bomb *b = find(c->arg);
	int n = 0, failures = 0, ret = 0;

	all_descriptors();
	while (n < b->bound && failures < 3) {
		ret = b->take(n);
		failures = ret ? failures + 1 : 0;
		n += !ret;
	}
	hostile_note("%d of %d, %s", n, b->bound, ret ? strerrorname_np(-ret) : "no limit");
	hostile_hold();
	return 0;
}

#define BOMB(name)                                                                                 \
	{                                                                                          \
		"bomb_" name, ON_NS, bomb, {0}, name                                               \
	}

static const struct hostile_case cases[] = {
	BOMB("processes"),       BOMB("threads"),          BOMB("user_namespaces"),
	BOMB("net_namespaces"),  BOMB("mount_namespaces"), BOMB("inotify_instances"),
	BOMB("inotify_watches"), BOMB("epoll_watches"),    BOMB("pipe_pages"),
	BOMB("pipes"),           BOMB("message_queues"),   BOMB("keys"),
	BOMB("timers"),          BOMB("terminals"),        BOMB("locked_memory"),
	BOMB("in_flight"),
};

const struct hostile_family hostile_bombs = {cases, ARRAY_SIZE(cases)};
