/* SPDX-License-Identifier: Apache-2.0
 *
 * How the command line and the supervisors reach the broker, and start it.
 *
 * Theory of operation: one broker serves all machines of a user.  It holds a lock in the runtime
 * folder and serves a socket beside it.  A client connects and asks; if nobody listens, it starts
 * a broker, which exits at once when another one has the lock.  A broker that accepts but does not
 * answer is stuck: the client ends the process that holds the lock, and starts another. */
#include "broker/broker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/report.h"
#include "base/str.h"
#include "base/unixsock.h"
#include "broker/host.h"
#include "broker/token.h"

enum {
	ENSURE_MS = 10000,
	ANSWER_MS = 4000, /* for one that serves to answer; else it is stuck */
	LOG_MAX_BYTES = 256 << 10,
};

char *broker_socket_path(const struct state_dirs *dirs)
{
	return str_printf("%s/broker.sock", dirs->runtime);
}

char *broker_gate_path(const struct state_dirs *dirs, const char *name)
{
	return str_printf("%s/machines/%s/guest/broker.sock", dirs->runtime, name);
}

int broker_connect(const struct state_dirs *dirs)
{
	_auto_free char *path = broker_socket_path(dirs);

	return unixsock_connect_as(path, SOCK_SEQPACKET | SOCK_NONBLOCK);
}

static int open_log(const struct state_dirs *dirs, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/broker.log", dirs->runtime);
	_auto_fd int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	struct stat st = {0};

	if (fd < 0 || fstat(fd, &st))
		return pil_err_set(err, errno, "start broker: open '%s'", path);
	if (st.st_size > LOG_MAX_BYTES && ftruncate(fd, 0))
		log_dbg("cannot cut the broker's log: %s", strerror(errno));
	return pil_take_fd(&fd);
}

/* @report_fd: where it says why it does not start; -1: nowhere. */
static pid_t spawn(const struct state_dirs *dirs, int report_fd, struct pil_err *err)
{
	_auto_free char *program = state_find_program("broker", "pillion-broker", err);
	_auto_fd int log_fd = program ? open_log(dirs, err) : -ENOENT;
	_auto_argv struct argv a = {0};
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = log_fd,
				 .stderr_fd = log_fd,
				 .keep_fds = &report_fd,
				 .n_keep_fds = 1,
				 .new_session = true};

	if (log_fd < 0)
		return log_fd;
	argv_add_all(&a, (const char *const[]){program, "--detach", NULL});
	if (report_fd >= 0) {
		argv_add(&a, "--report-fd");
		argv_addf(&a, "%d", report_fd);
	}
	return proc_spawn(a.v, &opts, err);
}

pid_t broker_spawn(const struct state_dirs *dirs, struct pil_err *err)
{
	return spawn(dirs, -1, err);
}

static int start_broker(const struct state_dirs *dirs, int64_t due_ms, struct pil_err *err)
{
	_auto_fd int write_fd = -1;
	_auto_fd int read_fd = report_open(&write_fd, err);
	pid_t pid = read_fd < 0 ? read_fd : spawn(dirs, write_fd, err);
	int status;

	if (pid < 0)
		return (int)pid;
	pil_close_p(&write_fd);
	status = proc_wait(pid, loop_left_ms(due_ms)); /* it detaches once it serves */
	if (status == -ETIMEDOUT) {
		proc_stop(pid, 0);
		return status;
	}
	if (!status)
		return 0;
	pil_err_say(err, EIO, "it ended with status %d", status);
	pil_err_hint(err, "see %s/broker.log", dirs->runtime);
	report_receive(read_fd, err);
	return pil_err_prefix(err, "start broker");
}

/* ---- asking ---- */

/* One question, within @timeout_ms; @answer begins with struct host_answer's head.  Returns how
 * many bytes it has, or -errno (-ETIMEDOUT: it does not answer). */
static ssize_t ask_for(int fd, const struct host_request *request, void *answer, size_t max,
		       int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n = send(fd, request, sizeof(*request), MSG_NOSIGNAL);

	if (n < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	if (poll(&p, 1, timeout_ms) <= 0)
		return -ETIMEDOUT;
	n = recv(fd, answer, max, 0);
	return n < 0 ? -errno : n == 0 ? -EPIPE : n;
}

/* 0, or -errno. */
static int ask(int fd, const struct host_request *request, struct host_answer *answer,
	       int timeout_ms)
{
	const size_t head = offsetof(struct host_answer, devices);
	ssize_t n;

	memset(answer, 0, head);
	n = ask_for(fd, request, answer, sizeof(*answer), timeout_ms);
	if (n < 0)
		return (int)n;
	if ((size_t)n < head || answer->kind != request->kind ||
	    answer->n_devices > WIRE_MAX_DEVICES ||
	    (size_t)n < head + answer->n_devices * sizeof(answer->devices[0]))
		return -EPROTO;
	return 0;
}

static int ask_ways(int fd, struct host_ways *answer, int timeout_ms)
{
	const struct host_request request = {.kind = HOST_WAYS};
	const size_t head = offsetof(struct host_ways, ways);
	ssize_t n = ask_for(fd, &request, answer, sizeof(*answer), timeout_ms);

	if (n < 0)
		return (int)n;
	if ((size_t)n < head || answer->kind != HOST_WAYS || answer->status != WIRE_OK ||
	    answer->n_ways > WIRE_MAX_DEVICES ||
	    (size_t)n < head + answer->n_ways * sizeof(answer->ways[0]))
		return -EPROTO;
	return 0;
}

/* The pid that the one who holds the broker's lock has written there; 0: none does, or not yet. */
static pid_t lock_holder(const struct state_dirs *dirs)
{
	_auto_free char *path = str_printf("%s/broker.pid", dirs->runtime);
	_auto_free char *text = NULL;
	_auto_fd int fd = open(path, O_RDWR | O_CLOEXEC);
	uint64_t pid;

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0 || pil_read_file(path, 32, &text) <= 0)
		return 0;
	text[strcspn(text, "\n")] = '\0';
	return str_to_u64(text, INT32_MAX, &pid) ? (pid_t)pid : 0;
}

bool broker_end_hung(const struct state_dirs *dirs, int fd)
{
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);
	_auto_fd int pidfd = -1;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || peer.pid <= 0 ||
	    lock_holder(dirs) != peer.pid)
		return false;
	pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	if (lock_holder(dirs) != peer.pid) /* it still is the process that we have opened */
		return false;
	log_warn("the broker (process %d) does not answer: it is ended", peer.pid);
	if (pidfd < 0) /* an old kernel, or a filter */
		return kill(peer.pid, SIGKILL) == 0;
	return syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0;
}

/* True: a broker answers.  One that is starting may take its time; one that is stuck is ended. */
static bool answers(const struct state_dirs *dirs, int64_t due_ms)
{
	const struct host_request ping = {.kind = HOST_PING};
	struct host_answer answer;
	_auto_fd int fd = broker_connect(dirs);
	int left = loop_left_ms(due_ms), ret;

	if (fd < 0)
		return false;
	ret = ask(fd, &ping, &answer, left < ANSWER_MS ? left : ANSWER_MS);
	if (ret == -ETIMEDOUT)
		broker_end_hung(dirs, fd);
	return ret == 0;
}

/* A broker that has just been started by somebody else holds the lock before it listens, and one
 * that leaves stops listening before it lets the lock go: hence trying again for a while. */
int broker_ensure(const struct state_dirs *dirs, struct pil_err *err)
{
	int64_t due_ms = clock_now_ms() + ENSURE_MS;

	do {
		const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
		int ret;

		if (answers(dirs, due_ms))
			return 0;
		ret = start_broker(dirs, due_ms, err);
		if (ret && ret != -ETIMEDOUT)
			return ret;
		if (answers(dirs, due_ms))
			return 0;
		nanosleep(&pause, NULL);
	} while (clock_now_ms() < due_ms);
	pil_err_hint(err, "is the process in %s/broker.pid stopped?", dirs->runtime);
	return pil_err_say(err, ETIMEDOUT, "start broker: nobody answers at its socket");
}

int broker_token_create(const struct state_dirs *dirs, const char *name, char *hex,
			struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/machines/%s", dirs->runtime, name);
	_auto_free char *path = str_printf("%s/token", dir);
	uint8_t raw[WIRE_TOKEN_BYTES];
	char line[TOKEN_HEX + 2];
	int ret;

	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		return pil_err_set(err, errno, "make a token");
	token_to_hex(raw, hex);
	snprintf(line, sizeof(line), "%s\n", hex);
	ret = path_mkdirs(dir, 0700);
	if (!ret)
		ret = pil_write_file(path, 0600, line, strlen(line));
	return ret ? pil_err_set(err, -ret, "write token '%s'", path) : 0;
}

static void make_printable(struct wire_device *d)
{
	d->name[sizeof(d->name) - 1] = '\0';
	d->description[sizeof(d->description) - 1] = '\0';
	d->card[sizeof(d->card) - 1] = '\0';
	str_blank_controls(d->name);
	str_blank_controls(d->description);
	d->api_name[sizeof(d->api_name) - 1] = '\0';
	str_blank_controls(d->card);
	str_blank_controls(d->api_name);
}

int broker_devices(const struct state_dirs *dirs, struct wire_device *out, int max,
		   struct pil_err *err)
{
	const struct host_request list = {.kind = HOST_LIST};
	struct host_answer answer = {0};
	_auto_fd int fd = -1;
	int n, ret = broker_ensure(dirs, err);

	if (ret)
		return ret;
	fd = broker_connect(dirs);
	ret = fd < 0 ? fd : ask(fd, &list, &answer, ANSWER_MS);
	if (ret)
		return pil_err_set(err, -ret, "ask the broker for its devices");
	if (answer.status >= WIRE_NUM_STATUSES || answer.status != WIRE_OK)
		return pil_err_say(err, EPROTO, "ask the broker for its devices: %s",
				   answer.status < WIRE_NUM_STATUSES
					   ? wire_status_str[answer.status]
					   : "bad answer");
	n = (int)answer.n_devices < max ? (int)answer.n_devices : max;
	for (int i = 0; i < n; i++) {
		out[i] = answer.devices[i];
		make_printable(&out[i]);
	}
	return n;
}

int broker_ways(const struct state_dirs *dirs, struct host_way *out, int max, struct pil_err *err)
{
	struct host_ways answer = {0};
	_auto_fd int fd = -1;
	int n, ret = broker_ensure(dirs, err);

	if (ret)
		return ret;
	fd = broker_connect(dirs);
	ret = fd < 0 ? fd : ask_ways(fd, &answer, ANSWER_MS);
	if (ret)
		return pil_err_set(err, -ret, "ask the broker for its cards");
	n = (int)answer.n_ways < max ? (int)answer.n_ways : max;
	for (int i = 0; i < n; i++) {
		out[i] = answer.ways[i];
		out[i].runtime[sizeof(out[i].runtime) - 1] = '\0';
		make_printable(&out[i].device);
	}
	return n;
}
