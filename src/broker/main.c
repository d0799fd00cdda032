/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-broker: who may use which device.
 *
 * Theory of operation: one event loop, nothing in it blocks.  A program connects and sends a hello;
 * the broker finds its machine by the token and either lists the devices or hands the stream, with
 * SCM_RIGHTS, to the executor of the device.  After that it has no part in the traffic: the hot
 * path touches neither it nor the command line.
 *
 * A hello must be complete within HELLO_MS, and only MAX_PENDING may be under way: when more come,
 * the oldest goes.  So a machine that dawdles cannot keep another one out.
 *
 * It is started on demand (broker_ensure()), one per user (a lock on broker.pid), and leaves after
 * IDLE_MS without a machine.  Executors with live sessions stay behind and leave by themselves. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker.h"
#include "config.h"
#include "executors.h"
#include "fd.h"
#include "jail.h"
#include "log.h"
#include "loop.h"
#include "path.h"
#include "str.h"
#include "token.h"

enum { HELLO_MS = 2000, MAX_PENDING = 64, IDLE_MS = 30000 };

struct broker {
	struct state_dirs dirs;
	struct config config;
	struct jail jail;
	struct executors executors;
	struct loop *loop;
	struct loop_source listener, signals;
	struct loop_timer idle;
	struct list pending; /* client::link, oldest first */
	int n_pending;
	struct log_limit mistakes;
};

struct client {
	struct broker *broker;
	struct loop_source source;
	struct loop_timer deadline;
	struct list link; /* broker::pending */
	size_t have;
	struct wire_hello hello;
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

static void mistake(struct client *c, const char *what)
{
	if (log_allowed(&c->broker->mistakes))
		log_warn("hello refused: %s", what);
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

	if (pil_sendv_all(c->source.fd, iov, n ? 2 : 1))
		mistake(c, "gone before the answer");
}

static void hand_over(struct client *c, const char *machine, uint64_t quota_bytes)
{
	struct broker *b = c->broker;
	struct control_open open = {.hello = c->hello, .quota_bytes = quota_bytes, .shm_ok = 1};
	enum wire_status status = WIRE_OK;

	if (c->hello.device >= (uint32_t)b->executors.n) {
		answer(c, WIRE_E_NO_DEVICE, NULL, 0);
		return;
	}
	memset(open.hello.token, 0, sizeof(open.hello.token)); /* no business of the executor's */
	snprintf(open.machine, sizeof(open.machine), "%s", machine);
	pil_set_nonblock(c->source.fd, false);
	answer(c, WIRE_OK, NULL, 0);
	status = executors_open(&b->executors, c->hello.device, &open, c->source.fd);
	if (status != WIRE_OK) {
		struct wire_welcome sorry = {.magic = WIRE_MAGIC,
					     .version = WIRE_VERSION,
					     .status = (uint16_t)status};
		struct iovec iov = {&sorry, sizeof(sorry)};

		if (pil_sendv_all(c->source.fd, &iov, 1))
			mistake(c, "gone before the welcome");
	}
}

static void process_hello(struct client *c)
{
	struct broker *b = c->broker;
	char machine[WIRE_MAX_NAME];
	uint64_t quota_bytes = 0;

	if (c->hello.magic != WIRE_MAGIC) {
		mistake(c, "not a pillion stream");
	} else if (c->hello.version != WIRE_VERSION) {
		answer(c, WIRE_E_VERSION, NULL, 0);
	} else if (!token_find(&b->dirs, c->hello.token, machine, &quota_bytes)) {
		mistake(c, wire_status_str[WIRE_E_TOKEN]);
		answer(c, WIRE_E_TOKEN, NULL, 0);
	} else if (c->hello.want == WIRE_WANT_LIST) {
		answer(c, WIRE_OK, b->executors.devices, b->executors.n);
	} else if (c->hello.want == WIRE_WANT_OPEN) {
		hand_over(c, machine, quota_bytes ? quota_bytes : b->config.quota_bytes);
	} else {
		mistake(c, "it asks for neither the list nor a device");
	}
}

static void client_ready(struct loop_source *source, uint32_t events)
{
	struct client *c = container_of(source, struct client, source);
	ssize_t n = recv(source->fd, (char *)&c->hello + c->have, sizeof(c->hello) - c->have, 0);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		c->have += (size_t)n;
	if (n > 0 && c->have < sizeof(c->hello))
		return;
	if (c->have == sizeof(c->hello))
		process_hello(c);
	client_destroy(c);
}

static void client_late(struct loop_timer *timer)
{
	struct client *c = container_of(timer, struct client, deadline);

	mistake(c, "not complete in time");
	client_destroy(c);
}

static void accept_one(struct broker *b, int fd)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->broker = b;
	c->source = (struct loop_source){.fd = fd, .ready = client_ready};
	c->deadline.expired = client_late;
	list_init(&c->link);
	if (b->n_pending >= MAX_PENDING)
		client_destroy(list_entry(b->pending.next, struct client, link));
	list_append(&b->pending, &c->link);
	b->n_pending++;
	if (loop_add(b->loop, &c->source, EPOLLIN))
		client_destroy(c);
	else
		loop_timer_arm(b->loop, &c->deadline, HELLO_MS);
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	struct broker *b = container_of(source, struct broker, listener);

	(void)events;
	for (;;) {
		int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		accept_one(b, fd);
	}
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

static void idle_expired(struct loop_timer *timer)
{
	struct broker *b = container_of(timer, struct broker, idle);

	executors_reap(&b->executors);
	if (!machine_alive(b) && !b->n_pending)
		loop_stop(b->loop, 0);
	else
		loop_timer_arm(b->loop, timer, IDLE_MS);
}

static void signal_ready(struct loop_source *source, uint32_t events)
{
	struct broker *b = container_of(source, struct broker, signals);
	struct signalfd_siginfo info;

	(void)events;
	while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			executors_reap(&b->executors);
		else
			loop_stop(b->loop, 0);
	}
}

static int listen_on(struct broker *b, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/guest", b->dirs.runtime);
	_auto_free char *path = broker_socket_path(&b->dirs);
	_auto_free char *tmp = str_printf("%s.new", path);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return pil_err_set(err, errno, "listen on '%s'", path);
	if (strlen(tmp) >= sizeof(address.sun_path))
		return pil_err_set(err, ENAMETOOLONG, "listen on '%s'", path);
	strcpy(address.sun_path, tmp);
	unlink(tmp);
	/* The folder above is ours alone; machines see this one as /run/pillion/host, where their
	 * users are other uids than ours. */
	if (path_mkdirs(dir, 0755) || chmod(dir, 0755) ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) || chmod(tmp, 0666) ||
	    listen(fd, 128) || rename(tmp, path))
		return pil_err_set(err, errno, "listen on '%s'", path);
	b->listener = (struct loop_source){.fd = pil_take_fd(&fd), .ready = listener_ready};
	return loop_add(b->loop, &b->listener, EPOLLIN);
}

static int catch_signals(struct broker *b)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	b->signals = (struct loop_source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
					  .ready = signal_ready};
	return b->signals.fd < 0 ? -errno : loop_add(b->loop, &b->signals, EPOLLIN);
}

static int set_up(struct broker *b, struct pil_err *err)
{
	_auto_free char *config_path = NULL;
	int ret;

	config_path = str_printf("%s/config", b->dirs.config);
	ret = config_load(&b->config, config_path, err);
	if (!ret)
		ret = jail_init(&b->jail, &b->dirs, &b->config, err);
	if (!ret)
		ret = executors_init(&b->executors, &b->jail, err);
	if (!ret)
		ret = loop_create(&b->loop);
	if (!ret)
		ret = catch_signals(b);
	return ret;
}

/* Forks; the parent waits until the child has said that it serves, or has ended, and exits. */
static int detach(struct pil_err *err)
{
	int pipe_fds[2], status = 0;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return pil_err_set(err, errno, "detach");
	pid = fork();
	if (pid < 0)
		return pil_err_set(err, errno, "detach");
	if (pid > 0) {
		close(pipe_fds[1]);
		_exit(pil_read_all(pipe_fds[0], &status, sizeof(status)) ? EXIT_FAILURE : status);
	}
	close(pipe_fds[0]);
	setsid();
	return pipe_fds[1];
}

static void report(int ready_fd, int status)
{
	if (ready_fd >= 0 && pil_write_all(ready_fd, &status, sizeof(status)))
		log_dbg("nobody waits for us");
}

static void write_pid(int lock_fd)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "%d\n", getpid());

	if (ftruncate(lock_fd, 0) || pwrite(lock_fd, text, (size_t)len, 0) < 0)
		log_warn("write broker.pid: %s", strerror(errno));
}

static int serve(struct broker *b, int ready_fd, struct pil_err *err)
{
	_auto_free char *pid_path = NULL;
	_auto_fd int lock_fd = -1;
	int ret = state_dirs_init(&b->dirs, err);

	if (ret)
		return ret;
	pid_path = str_printf("%s/broker.pid", b->dirs.runtime);
	lock_fd = state_lock(pid_path, 0, err);
	if (lock_fd == -EWOULDBLOCK)
		return 0; /* somebody was faster; the caller connects to that one */
	if (lock_fd < 0)
		return lock_fd;
	ret = set_up(b, err);
	if (!ret)
		ret = listen_on(b, err);
	if (ret)
		return ret;
	write_pid(lock_fd);
	report(ready_fd, EXIT_SUCCESS);
	loop_timer_arm(b->loop, &b->idle, IDLE_MS);
	loop_run(b->loop);
	executors_finish(&b->executors);
	return 0;
}

int main(int argc, char **argv)
{
	struct broker b = {.idle.expired = idle_expired};
	struct pil_err err = {0};
	int ready_fd = -1, ret;

	log_init("pillion-broker");
	list_init(&b.pending);
	if (argc > 1 && !strcmp(argv[1], "--detach")) {
		ready_fd = detach(&err);
		if (ready_fd < 0)
			return EXIT_FAILURE;
	}
	ret = serve(&b, ready_fd, &err);
	if (ret) {
		log_err("%s", err.msg[0] ? err.msg : strerror(-ret));
		if (err.hint[0])
			log_err("hint: %s", err.hint);
	}
	report(ready_fd, ret ? EXIT_FAILURE : EXIT_SUCCESS);
	return ret ? EXIT_FAILURE : EXIT_SUCCESS;
}
