/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-broker: who may use which device.
 *
 *   pillion-broker [--detach] [--idle-ms N]
 *   pillion-broker --list      the devices it offers, one per line; starts it if need be
 *
 * Theory of operation: one event loop, nothing in it blocks.  A program connects and sends a hello;
 * the broker finds its machine by the token and either lists the devices or hands the stream, with
 * SCM_RIGHTS, to the executor of the device.  After that it has no part in the traffic: the hot
 * path touches neither it nor the command line.
 *
 * A hello must be complete within HELLO_MS, and only MAX_PENDING may be under way: when more come,
 * the oldest goes of the process that has the most (a microVM is one).  A fresh stream is read at
 * once, before it joins them, and programs send their hello as they connect, and once more if it
 * was not heard; so machines that dawdle cannot keep another one out.
 *
 * It is started on demand (broker_ensure()), one per user (a lock on broker.pid), and leaves when
 * for --idle-ms there was neither a machine nor a session.  Executors with live sessions stay
 * behind when it is killed, and leave by themselves.  It listens before it asks for the devices, so
 * that who comes in between waits instead of being turned away.  SIGHUP: begin anew, with the
 * config as it is now. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker.h"
#include "config.h"
#include "daemon.h"
#include "devices.h"
#include "executors.h"
#include "fd.h"
#include "hello.h"
#include "jail.h"
#include "log.h"
#include "loop.h"
#include "path.h"
#include "str.h"
#include "token.h"

enum {
	HELLO_MS = 2000,
	MAX_PENDING = 64,
	ACCEPT_BATCH = 32,
	ACCEPT_PAUSE_MS = 100,
	IDLE_MS = 30000,
	EXECUTOR_IDLE_MS = 60000,
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
	struct loop_source listener, signals;
	struct loop_timer idle, accept_pause;
	int64_t idle_ms;
	int64_t used_ms;     /* when somebody last needed us */
	struct list pending; /* client::link, oldest first */
	int n_pending;
	struct log_limit mistakes;
	unsigned n_mistakes;
};

struct client {
	struct broker *broker;
	struct loop_source source;
	struct loop_timer deadline;
	struct list link; /* broker::pending */
	pid_t pid;        /* whose stream it is; 0: of a namespace we cannot see */
	struct hello hello;
};

static void client_destroy(struct client *c)
{
	loop_remove(&c->source);
	loop_timer_cancel(&c->deadline);
	list_remove(&c->link);
	c->broker->n_pending--;
	close(c->source.fd);
	free(c);
}

static void mistake(struct broker *b, const char *what)
{
	unsigned held_back = b->mistakes.held_back;

	b->n_mistakes++;
	if (log_allowed(&b->mistakes))
		log_warn("hello refused: %s (%u more, %u in all)", what, held_back, b->n_mistakes);
}

/* The socket buffer of a fresh stream holds any answer of ours, so this does not block. */
static void answer(struct client *c, enum wire_status status, const struct wire_device *devices,
		   int n)
{
	struct wire_hello_answer a = {.magic = WIRE_MAGIC,
				      .version = WIRE_VERSION,
				      .status = (uint16_t)status,
				      .n_devices = (uint32_t)n};
	struct iovec iov[] = {{&a, sizeof(a)}, {(void *)devices, sizeof(*devices) * (size_t)n}};

	if (status != WIRE_OK)
		mistake(c->broker, wire_status_str[status]);
	if (pil_sendv_all(c->source.fd, iov, n ? 2 : 1))
		mistake(c->broker, "gone before the answer");
}

static void hand_over(struct client *c, const char *machine, uint64_t quota_bytes)
{
	struct broker *b = c->broker;
	struct control_open open = {
		.max_sessions = MAX_SESSIONS,
		.hello = c->hello.wire,
		.quota_bytes = quota_bytes,
		.shm_ok = 1,
	};
	struct wire_welcome sorry = {.magic = WIRE_MAGIC, .version = WIRE_VERSION};
	struct iovec iov = {&sorry, sizeof(sorry)};
	enum wire_status status;

	if (open.hello.device >= (uint32_t)b->executors.n) {
		answer(c, WIRE_E_NO_DEVICE, NULL, 0);
		return;
	}
	memset(open.hello.token, 0, sizeof(open.hello.token)); /* no business of the executor's */
	snprintf(open.machine, sizeof(open.machine), "%s", machine);
	answer(c, WIRE_OK, NULL, 0);
	pil_set_nonblock(c->source.fd, false);
	status = executors_open(&b->executors, open.hello.device, &open, c->source.fd);
	if (status == WIRE_OK)
		return;
	pil_set_nonblock(c->source.fd, true);
	sorry.status = (uint16_t)status;
	if (pil_sendv_all(c->source.fd, &iov, 1))
		mistake(b, "gone before the welcome");
}

static void serve(struct client *c, enum hello_state state)
{
	struct broker *b = c->broker;
	struct wire_device devices[WIRE_MAX_DEVICES];
	char machine[WIRE_MAX_NAME];
	uint64_t quota_bytes = 0;

	if (!token_find(&b->dirs, c->hello.wire.token, machine, &quota_bytes)) {
		answer(c, WIRE_E_TOKEN, NULL, 0);
		return;
	}
	b->used_ms = loop_now_ms();
	if (!quota_bytes)
		quota_bytes = b->config.quota_bytes;
	if (state == HELLO_OPEN)
		hand_over(c, machine, quota_bytes);
	else
		answer(c, WIRE_OK, devices, executors_list(&b->executors, quota_bytes, devices));
}

/* Reads what is there.  True when the hello is over, well or not. */
static bool client_read(struct client *c)
{
	enum hello_state state;
	size_t len;
	void *room = hello_room(&c->hello, &len);
	ssize_t n = recv(c->source.fd, room, len, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0)
		return true;
	state = hello_received(&c->hello, (size_t)n);
	if (state == HELLO_BAD)
		mistake(c->broker, "not a pillion stream");
	else if (state == HELLO_OTHER)
		answer(c, WIRE_E_VERSION, NULL, 0);
	else if (state != HELLO_MORE)
		serve(c, state);
	return state != HELLO_MORE;
}

static void client_ready(struct loop_source *source, uint32_t events)
{
	struct client *c = container_of(source, struct client, source);

	(void)events;
	if (client_read(c))
		client_destroy(c);
}

static void client_late(struct loop_timer *timer)
{
	struct client *c = container_of(timer, struct client, deadline);

	mistake(c->broker, "not complete in time");
	client_destroy(c);
}

static int count_pending(struct broker *b, pid_t pid)
{
	struct client *c;
	int n = 0;

	list_for_each (c, &b->pending, link)
		n += c->pid == pid;
	return n;
}

static void drop_one(struct broker *b)
{
	struct client *c, *victim = NULL;
	int most = 0;

	list_for_each (c, &b->pending, link) { /* of equals the oldest */
		int n = count_pending(b, c->pid);

		if (n > most) {
			most = n;
			victim = c;
		}
	}
	mistake(b, "too many unfinished ones, one goes");
	if (victim)
		client_destroy(victim);
}

static void accept_one(struct broker *b, int fd)
{
	struct client *c = calloc(1, sizeof(*c));
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);

	if (!c) {
		close(fd);
		return;
	}
	b->used_ms = loop_now_ms();
	c->broker = b;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
		c->pid = peer.pid;
	c->source = (struct loop_source){.fd = fd, .ready = client_ready};
	c->deadline.expired = client_late;
	list_append(&b->pending, &c->link);
	b->n_pending++;
	if (client_read(c) || loop_add(b->loop, &c->source, EPOLLIN)) {
		client_destroy(c);
		return;
	}
	loop_timer_arm(b->loop, &c->deadline, HELLO_MS);
	if (b->n_pending > MAX_PENDING)
		drop_one(b);
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
		} else if (b->n_pending) {
			drop_one(b);
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
	if (executors_tick(&b->executors, EXECUTOR_IDLE_MS) || machine_alive(b) || b->n_pending)
		b->used_ms = now;
	if (now - b->used_ms >= b->idle_ms)
		loop_stop(b->loop, RESULT_LEAVE);
	else
		loop_timer_arm(b->loop, timer, b->idle_ms / 2);
}

static void reap(struct broker *b)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (!executors_reaped(&b->executors, pid, status))
			log_dbg("process %d ended", pid);
}

static void signal_ready(struct loop_source *source, uint32_t events)
{
	struct broker *b = container_of(source, struct broker, signals);
	struct signalfd_siginfo info;

	(void)events;
	while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			reap(b);
		else
			loop_stop(b->loop,
				  info.ssi_signo == SIGHUP ? RESULT_RESTART : RESULT_LEAVE);
	}
}

/* A stale socket is replaced in one step: nobody ever finds none.  The folder above is ours alone;
 * machines see this one as /run/pillion/host, where their users are other uids than ours. */
static int listen_on(struct broker *b, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/guest", b->dirs.runtime);
	_auto_free char *path = broker_socket_path(&b->dirs);
	_auto_free char *tmp = str_printf("%s.new", path);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return pil_err_set(err, errno, "listen on '%s'", path);
	if (strlen(tmp) >= sizeof(address.sun_path)) {
		pil_err_hint(err, "set XDG_RUNTIME_DIR to a shorter path");
		return pil_err_set(err, ENAMETOOLONG, "listen on '%s'", path);
	}
	strcpy(address.sun_path, tmp);
	unlink(tmp);
	if (path_mkdirs(dir, 0755) || chmod(dir, 0755) ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) || chmod(tmp, 0666) ||
	    listen(fd, SOMAXCONN) || rename(tmp, path))
		return pil_err_set(err, errno, "listen on '%s'", path);
	b->listener = (struct loop_source){.fd = pil_take_fd(&fd), .ready = listener_ready};
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
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	signal(SIGPIPE, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	b->signals = (struct loop_source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
					  .ready = signal_ready};
	return b->signals.fd < 0 ? -errno : 0;
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
		ret = loop_add(b->loop, &b->signals, EPOLLIN);
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
	struct client *c, *next;

	list_for_each_safe (c, next, &b->pending, link)
		client_destroy(c);
	pil_close_p(&b->listener.fd);
	pil_close_p(&b->signals.fd);
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
	ret = set_up(b, err);
	if (!ret) {
		write_pid(lock_fd);
		daemon_report(ready_fd, EXIT_SUCCESS);
		b->used_ms = loop_now_ms();
		loop_timer_arm(b->loop, &b->idle, b->idle_ms / 2);
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
	for (int i = 0; i < n; i++)
		printf("%u\t%s\t%s\t%" PRIu64 "\t%" PRIu64 "\t%s\n", devices[i].index,
		       devices[i].name,
		       devices[i].flags & WIRE_DEVICE_REFERENCE ? "reference device" : "device",
		       devices[i].memory_total, devices[i].memory_free, devices[i].description);
	state_dirs_finish(&dirs);
	return n < 0 ? n : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"detach", no_argument, NULL, 'd'},
		{"idle-ms", required_argument, NULL, 'i'},
		{"list", no_argument, NULL, 'l'},
		{0},
	};
	struct broker b = {.idle.expired = idle_expired,
			   .accept_pause.expired = accept_again,
			   .listener.fd = -1,
			   .signals.fd = -1,
			   .idle_ms = IDLE_MS};
	char idle_text[24];
	char *const again[] = {argv[0], (char *)"--idle-ms", idle_text, NULL};
	uint64_t idle_ms;
	struct pil_err err = {0};
	bool want_detach = false, want_list = false;
	int c, ret, ready_fd = -1;

	log_init("pillion-broker");
	pil_raise_fd_limit();
	list_init(&b.pending);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'd')
			want_detach = true;
		else if (c == 'l')
			want_list = true;
		else if (c == 'i' && str_to_u64(optarg, 86400000, &idle_ms) && idle_ms >= 100)
			b.idle_ms = (int64_t)idle_ms;
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
	if (ret < 0) {
		log_err("%s", err.msg[0] ? err.msg : strerror(-ret));
		if (err.hint[0])
			log_err("hint: %s", err.hint);
	}
	daemon_report(&ready_fd, ret ? EXIT_FAILURE : EXIT_SUCCESS);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}
