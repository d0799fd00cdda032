/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-broker: who may use which device.
 *
 *   pillion-broker [--detach] [--idle-ms N]
 *   pillion-broker --list      the devices it offers, one per line; starts it if need be
 *
 * Theory of operation: one event loop, nothing in it blocks.  It speaks with processes of its own
 * user on the host only (host.h): no machine sees its socket, and what a program of a machine sends
 * is read by the gate of that machine (gate.c).  A gate asks on the program's behalf; the broker
 * compares the token with that of the gate's machine and either lists the devices or hands the
 * stream, with SCM_RIGHTS, to the executor of the device.  After that it has no part in the
 * traffic: the hot path touches neither it nor the command line.
 *
 * It holds a program's stream only while the gate holds it, too, and reads nothing from it, so that
 * it never drops what a guest has queued there.
 *
 * It is started on demand (broker_ensure()), one per user (a lock on broker.pid, which holds its
 * pid once it serves), and leaves when for --idle-ms there was neither a machine nor a session.
 * Executors with live sessions stay behind when it is killed, and leave by themselves.  It listens
 * before it asks for the devices, so that who comes in between waits instead of being turned away.
 * SIGHUP: begin anew, with the config as it is now.
 *
 * SIGTERM and SIGINT end it within END_MS whatever it is at: they are caught, not blocked, so that
 * they interrupt a wait in the kernel, and an alarm sees to the rest. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/daemon.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/report.h"
#include "base/str.h"
#include "base/unixsock.h"
#include "broker/broker.h"
#include "broker/devices.h"
#include "broker/executors.h"
#include "broker/host.h"
#include "broker/jail.h"
#include "broker/token.h"
#include "config/config.h"

enum {
	ACCEPT_BATCH = 32,
	ACCEPT_PAUSE_MS = 100,
	IDLE_MS = 30000,
	EXECUTOR_IDLE_MS = 60000,
	WATCH_MS = 2000, /* between looks at the executors */
	END_MS = 500,
	MAX_SESSIONS = 64, /* of one machine on one device */
	MAX_LOG_BYTES = 1 << 20,
	RESULT_LEAVE = 0,
	RESULT_RESTART = 1,
};

struct broker {
	struct state_dirs dirs;
	struct config config;
	struct jail jail;
	struct executors executors;
	struct loop *loop;
	struct loop_source listener, children, asked;
	struct loop_timer idle, watch, accept_pause;
	int64_t idle_ms;
	int64_t used_ms;   /* when somebody last needed us */
	struct list peers; /* peer::link */
	struct log_limit mistakes;
	unsigned n_mistakes;
};

struct peer { /* a process of the host's */
	struct broker *broker;
	struct loop_source source;
	struct list link; /* broker::peers */
};

static void peer_destroy(struct peer *p)
{
	loop_remove(&p->source);
	list_remove(&p->link);
	close(p->source.fd);
	free(p);
}

static void mistake(struct broker *b, const char *machine, const char *what)
{
	unsigned held_back = b->mistakes.held_back;

	b->n_mistakes++;
	if (log_allowed(&b->mistakes))
		log_warn("hello of a program in %s refused: %s (%u more, %u in all)", machine, what,
			 held_back, b->n_mistakes);
}

/* ---- requests ---- */

/* To the program itself: the socket buffer of a fresh stream holds any answer of ours. */
static void tell(int stream_fd, const void *data, size_t len)
{
	if (send(stream_fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
		log_dbg("gone before the answer");
}

struct limits {               /* of one machine on each device */
	uint64_t quota_bytes; /* 0: the whole device */
	unsigned weight;
};

/* By the settings as they are now.  A file that cannot be read gives nothing away. */
static enum wire_status find_limits(struct broker *b, const char *machine, struct limits *limits)
{
	struct pil_err err = {0};
	struct config config;

	if (config_load_machine(&config, &b->dirs, machine, &err)) {
		mistake(b, machine, err.msg);
		return WIRE_E_SETTINGS;
	}
	*limits = (struct limits){config.quota_bytes, config.weight};
	config_finish(&config);
	return WIRE_OK;
}

static enum wire_status hand_over(struct broker *b, const struct host_request *r,
				  const struct limits *limits, const int *fds)
{
	struct control_open open = {
		.max_sessions = MAX_SESSIONS,
		.hello = r->hello,
		.quota_bytes = limits->quota_bytes,
		.weight = limits->weight,
		.shm_ok = 1,
	};
	struct wire_hello_answer yes = {.magic = WIRE_MAGIC, .version = WIRE_VERSION};
	struct wire_welcome sorry = {.magic = WIRE_MAGIC, .version = WIRE_VERSION};
	enum wire_status status;

	memset(open.hello.token, 0, sizeof(open.hello.token)); /* no business of the executor's */
	snprintf(open.machine, sizeof(open.machine), "%s", r->machine);
	tell(fds[0], &yes, sizeof(yes));
	status = executors_open(&b->executors, open.hello.device, &open, fds, HOST_FDS);
	if (status == WIRE_OK)
		return status;
	sorry.status = (uint16_t)status;
	tell(fds[0], &sorry, sizeof(sorry));
	return status;
}

static void open_session(struct broker *b, const struct host_request *r, const int *fds,
			 struct host_answer *a)
{
	struct wire_hello_answer no = {.magic = WIRE_MAGIC, .version = WIRE_VERSION};
	struct limits limits = {0};

	if (!token_check(&b->dirs, r->machine, r->hello.token))
		a->status = WIRE_E_TOKEN;
	else
		a->status = executors_check(&b->executors, r->hello.device, r->hello.api,
					    r->hello.api_version);
	if (a->status == WIRE_OK)
		a->status = find_limits(b, r->machine, &limits);
	if (a->status == WIRE_OK) {
		a->status = hand_over(b, r, &limits, fds);
		return;
	}
	mistake(b, r->machine, wire_status_str[a->status]);
	no.status = (uint16_t)a->status;
	tell(fds[0], &no, sizeof(no));
}

static void list_devices(struct broker *b, const struct host_request *r, struct host_answer *a)
{
	struct limits limits = {.quota_bytes = b->config.quota_bytes};

	if (r->machine[0] && !token_check(&b->dirs, r->machine, r->hello.token)) {
		a->status = WIRE_E_TOKEN;
		mistake(b, r->machine, wire_status_str[a->status]);
		return;
	}
	if (r->machine[0])
		a->status = find_limits(b, r->machine, &limits);
	if (a->status == WIRE_OK)
		a->n_devices = (uint32_t)executors_list(&b->executors, r->hello.api,
							limits.quota_bytes, a->devices);
}

/* False: not a request. */
static bool serve(struct broker *b, struct host_request *r, const int *fds, int n_fds,
		  struct host_answer *a)
{
	a->kind = r->kind;
	r->machine[sizeof(r->machine) - 1] = '\0';
	if (r->kind == HOST_PING)
		return true;
	b->used_ms = loop_now_ms();
	if (r->kind == HOST_LIST)
		list_devices(b, r, a);
	else if (r->kind == HOST_OPEN && n_fds == HOST_FDS)
		open_session(b, r, fds, a);
	else
		return false;
	return true;
}

/* False: it has gone. */
static bool list_ways(struct broker *b, int fd)
{
	struct host_ways a = {.kind = HOST_WAYS};
	size_t len = offsetof(struct host_ways, ways);

	b->used_ms = loop_now_ms();
	a.n_ways = (uint32_t)executors_ways(&b->executors, a.ways);
	len += a.n_ways * sizeof(a.ways[0]);
	return send(fd, &a, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

static void peer_ready(struct loop_source *source, uint32_t events)
{
	struct peer *p = container_of(source, struct peer, source);
	struct host_request r;
	struct host_answer a = {0};
	int fds[HOST_FDS], n_fds = HOST_FDS;
	ssize_t n = pil_recv_fds(source->fd, &r, sizeof(r), fds, &n_fds, MSG_DONTWAIT);
	size_t len = offsetof(struct host_answer, devices);
	bool ok;

	(void)events;
	if (n == -EAGAIN)
		return;
	if (n == (ssize_t)sizeof(r) && r.kind == HOST_WAYS && !n_fds) {
		if (!list_ways(p->broker, source->fd))
			peer_destroy(p);
		return;
	}
	ok = n == (ssize_t)sizeof(r) && serve(p->broker, &r, fds, n_fds, &a);
	while (n_fds > 0) /* the gate has its own: we are never the last to close one */
		close(fds[--n_fds]);
	len += a.n_devices * sizeof(a.devices[0]);
	if (!ok || send(source->fd, &a, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
		peer_destroy(p);
}

static void accept_one(struct broker *b, int fd)
{
	struct peer *p = calloc(1, sizeof(*p));

	if (!p) {
		close(fd);
		return;
	}
	p->broker = b;
	p->source = (struct loop_source){.fd = fd, .ready = peer_ready};
	list_append(&b->peers, &p->link);
	if (loop_add(b->loop, &p->source, EPOLLIN))
		peer_destroy(p);
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	struct broker *b = container_of(source, struct broker, listener);

	(void)events;
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			accept_one(b, fd);
		} else if (errno != EMFILE && errno != ENFILE && errno != ENOMEM) {
			return;
		} else { /* it stays readable: do not spin on it */
			loop_remove(source);
			loop_timer_arm(b->loop, &b->accept_pause, ACCEPT_PAUSE_MS);
			return;
		}
	}
}

static void accept_again(struct loop_timer *timer)
{
	struct broker *b = container_of(timer, struct broker, accept_pause);

	if (loop_add(b->loop, &b->listener, EPOLLIN))
		loop_stop(b->loop, RESULT_LEAVE); /* deaf: let another one be started */
}

/* ---- life ---- */

static bool machine_alive(const struct broker *b)
{
	_auto_free char *path = str_printf("%s/machines", b->dirs.runtime);
	DIR *dir = opendir(path);
	struct dirent *e;
	bool alive = false;

	while (dir && !alive && (e = readdir(dir))) {
		_auto_free char *pid_path = str_printf("%s/%s/pid", path, e->d_name);
		_auto_free char *text = NULL;

		if (str_is_name(e->d_name) && pil_read_file(pid_path, 32, &text) > 0)
			alive = kill((pid_t)strtol(text, NULL, 10), 0) == 0;
	}
	if (dir)
		closedir(dir);
	return alive;
}

/* Standard error is a file that nobody else keeps short. */
static void bound_log(void)
{
	struct stat st;

	if (fstat(STDERR_FILENO, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > MAX_LOG_BYTES &&
	    ftruncate(STDERR_FILENO, 0))
		log_dbg("cannot cut the log: %s", strerror(errno));
}

static void idle_expired(struct loop_timer *timer)
{
	struct broker *b = container_of(timer, struct broker, idle);
	int64_t now = loop_now_ms();

	bound_log();
	executors_tick(&b->executors, EXECUTOR_IDLE_MS);
	if (executors_sessions(&b->executors) || machine_alive(b))
		b->used_ms = now;
	if (now - b->used_ms >= b->idle_ms)
		loop_stop(b->loop, RESULT_LEAVE);
	else
		loop_timer_arm(b->loop, timer, b->idle_ms / 2);
}

static void watch_expired(struct loop_timer *timer)
{
	struct broker *b = container_of(timer, struct broker, watch);

	executors_tick(&b->executors, EXECUTOR_IDLE_MS);
	loop_timer_arm(b->loop, timer, WATCH_MS);
}

static void reap(struct broker *b)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (!executors_reaped(&b->executors, pid, status))
			log_dbg("process %d ended", pid);
}

static void child_ended(struct loop_source *source, uint32_t events)
{
	struct signalfd_siginfo info;

	(void)events;
	while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		;
	reap(container_of(source, struct broker, children));
}

static int asked_fd = -1; /* an eventfd: a signal has come */
static volatile sig_atomic_t asked_to_end;

static void on_signal(int number)
{
	const struct itimerval end = {.it_value.tv_usec = END_MS * 1000};
	const uint64_t one = 1;
	int saved = errno;

	if (number != SIGHUP) {
		asked_to_end = 1;
		setitimer(ITIMER_REAL, &end, NULL); /* nobody catches SIGALRM */
	}
	if (write(asked_fd, &one, sizeof(one)) < 0)
		_exit(EXIT_FAILURE);
	errno = saved;
}

static void asked(struct loop_source *source, uint32_t events)
{
	struct broker *b = container_of(source, struct broker, asked);
	uint64_t count;

	(void)events;
	if (read(source->fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
		loop_stop(b->loop, asked_to_end ? RESULT_LEAVE : RESULT_RESTART);
}

static int listen_on(struct broker *b, struct pil_err *err)
{
	_auto_free char *path = broker_socket_path(&b->dirs);
	int fd = unixsock_listen_as(path, SOCK_SEQPACKET | SOCK_NONBLOCK, 0600, err);

	if (fd < 0)
		return fd;
	b->listener = (struct loop_source){.fd = fd, .ready = listener_ready};
	return 0;
}

/* Only while we hold the lock, so it is ours. */
static void unlink_socket(const struct broker *b)
{
	_auto_free char *path = broker_socket_path(&b->dirs);

	unlink(path);
}

static int catch_signals(struct broker *b)
{
	const struct sigaction action = {.sa_handler = on_signal};
	static const int caught[] = {SIGHUP, SIGTERM, SIGINT};
	sigset_t set;

	asked_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	b->asked = (struct loop_source){.fd = asked_fd, .ready = asked};
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	signal(SIGPIPE, SIG_IGN);
	if (asked_fd < 0 || sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
		sigaction(caught[i], &action, NULL);
	b->children = (struct loop_source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
					   .ready = child_ended};
	return b->children.fd < 0 ? -errno : 0;
}

static int find_devices(struct broker *b, struct pil_err *err)
{
	struct wire_device found[WIRE_MAX_DEVICES];
	_auto_free char *config_path = str_printf("%s/config", b->dirs.config);
	int n = config_load(&b->config, config_path, err);

	if (!n)
		n = jail_init(&b->jail, &b->dirs, &b->config, err);
	if (!n)
		n = devices_find(&b->dirs, &b->jail, found, err);
	if (n < 0)
		return n;
	n = devices_select(found, n, b->config.reference_always);
	executors_init(&b->executors, b->loop, &b->jail, found, n);
	return 0;
}

static int set_up(struct broker *b, struct pil_err *err)
{
	int ret = loop_create(&b->loop);

	if (ret)
		return pil_err_set(err, -ret, "make an event loop");
	ret = listen_on(b, err);
	if (!ret)
		ret = find_devices(b, err);
	if (ret)
		return ret;
	ret = catch_signals(b);
	if (!ret)
		ret = loop_add(b->loop, &b->children, EPOLLIN);
	if (!ret)
		ret = loop_add(b->loop, &b->asked, EPOLLIN);
	if (!ret)
		ret = loop_add(b->loop, &b->listener, EPOLLIN);
	return ret ? pil_err_set(err, -ret, "set up the event loop") : 0;
}

static void write_pid(int lock_fd)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%d\n", getpid());

	if (ftruncate(lock_fd, 0) || pwrite(lock_fd, text, (size_t)len, 0) < 0)
		log_warn("write broker.pid: %s", strerror(errno));
}

static void broker_finish(struct broker *b)
{
	struct peer *p, *next;

	list_for_each_safe (p, next, &b->peers, link)
		peer_destroy(p);
	pil_close_p(&b->listener.fd);
	pil_close_p(&b->children.fd);
	pil_close_p(&b->asked.fd);
	loop_destroy(b->loop);
	jail_finish(&b->jail);
	config_finish(&b->config);
	state_dirs_finish(&b->dirs);
}

/* Returns a RESULT_ or -errno.  The lock is held until the process ends or execs. */
static int run(struct broker *b, int *ready_fd, struct pil_err *err)
{
	_auto_free char *pid_path = NULL;
	int lock_fd, ret = state_dirs_init(&b->dirs, err);

	if (ret)
		return ret;
	pid_path = str_printf("%s/broker.pid", b->dirs.runtime);
	lock_fd = state_lock(pid_path, 0, err);
	if (lock_fd == -EWOULDBLOCK)
		return RESULT_LEAVE; /* somebody was faster; the caller connects to that one */
	if (lock_fd < 0)
		return lock_fd;
	if (ftruncate(lock_fd, 0)) /* no pid: not to be taken for stuck */
		log_dbg("%s: %s", pid_path, strerror(errno));
	ret = set_up(b, err);
	if (!ret) {
		write_pid(lock_fd);
		daemon_report(ready_fd, EXIT_SUCCESS);
		b->used_ms = loop_now_ms();
		loop_timer_arm(b->loop, &b->idle, b->idle_ms / 2);
		loop_timer_arm(b->loop, &b->watch, WATCH_MS);
		ret = loop_run(b->loop);
		executors_finish(&b->executors);
	}
	if (ret != RESULT_RESTART)
		unlink_socket(b);
	return ret;
}

static int list(struct pil_err *err)
{
	struct wire_device devices[WIRE_MAX_DEVICES];
	struct state_dirs dirs = {0};
	int ret = state_dirs_init(&dirs, err), n;

	if (ret)
		return ret;
	n = broker_devices(&dirs, devices, WIRE_MAX_DEVICES, err);
	for (int i = 0; i < n; i++) {
		char name[WIRE_MAX_NAME * 4], description[sizeof(devices[i].description) * 4];

		printf("%u\t%s\t%s\t%" PRIu64 "\t%" PRIu64 "\t%s\t%s\n", devices[i].index,
		       str_escape_controls(name, sizeof(name), devices[i].name),
		       devices[i].flags & WIRE_DEVICE_REFERENCE ? "reference device" : "device",
		       devices[i].memory_total, devices[i].memory_free,
		       str_escape_controls(description, sizeof(description),
					   devices[i].description),
		       devices[i].card);
	}
	state_dirs_finish(&dirs);
	return n < 0 ? n : 0;
}

static void say_why(int ret, int report_fd, struct pil_err *err)
{
	if (!err->msg[0])
		pil_err_set(err, -ret, "serve");
	log_err("%s", err->msg);
	if (err->hint[0])
		log_err("hint: %s", err->hint);
	report_send(report_fd, err);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"detach", no_argument, NULL, 'd'},
		{"idle-ms", required_argument, NULL, 'i'},
		{"list", no_argument, NULL, 'l'},
		{"report-fd", required_argument, NULL, 'r'},
		{0},
	};
	struct broker b = {.idle.expired = idle_expired,
			   .watch.expired = watch_expired,
			   .accept_pause.expired = accept_again,
			   .listener.fd = -1,
			   .children.fd = -1,
			   .asked.fd = -1,
			   .idle_ms = IDLE_MS};
	char idle_text[24];
	char *const again[] = {argv[0], (char *)"--idle-ms", idle_text, NULL};
	uint64_t idle_ms, fd;
	int report_fd = -1;
	struct pil_err err = {0};
	bool want_detach = false, want_list = false;
	int c, ret, ready_fd = -1;

	log_init("pillion-broker");
	pil_raise_fd_limit();
	list_init(&b.peers);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'd')
			want_detach = true;
		else if (c == 'l')
			want_list = true;
		else if (c == 'i' && str_to_u64(optarg, 86400000, &idle_ms) && idle_ms >= 100)
			b.idle_ms = (int64_t)idle_ms;
		else if (c == 'r' && str_to_u64(optarg, INT32_MAX, &fd))
			report_fd = (int)fd;
		else
			return EXIT_FAILURE;
	}
	if (want_detach)
		ready_fd = daemon_detach(&err);
	if (want_list)
		ret = list(&err);
	else
		ret = want_detach && ready_fd < 0 ? ready_fd : run(&b, &ready_fd, &err);
	broker_finish(&b);
	if (ret == RESULT_RESTART) {
		snprintf(idle_text, sizeof(idle_text), "%lld", (long long)b.idle_ms);
		execv("/proc/self/exe", again);
		ret = pil_err_set(&err, errno, "begin anew");
	}
	if (ret < 0)
		say_why(ret, report_fd, &err);
	daemon_report(&ready_fd, ret ? EXIT_FAILURE : EXIT_SUCCESS);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}
