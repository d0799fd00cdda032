/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: one poll loop over the stream, our input, the terminal and a pipe of
 * signals.  Input is read only while the agent has granted credit for it, and from a terminal only
 * while it is ours (terminal.h); INT, TERM, QUIT and HUP are passed on.  So are the signals that
 * stop us and let us go on.  The terminal is put back however this ends.
 *
 * TERM and HUP end us within a second whatever we wait for, also a reader of our output: the
 * handler sets a timer of END_MS, and if the command has not ended by then the next handler is our
 * end. The command is hung up by its agent then, as whenever its command line goes.
 *
 * An agent that stops in the middle of a frame, or takes nothing more, could not be told of a
 * signal: then the second one, or the first TERM or HUP, is our own end.  So is, of signals that
 * were passed on and that nothing at all came back after, the second, or third Ctrl-C.
 *
 * Root of the machine can take the agent's place and queue descriptors for us; see queued.h. */
#include "machine/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/fd.h"
#include "base/queued.h"
#include "base/str.h"
#include "machine/terminal.h"

enum { START_MS = 60000, STUCK_MS = 400, END_MS = 700, TERMINAL_MS = 250 };

struct attachment {
	const struct attach_opts *opts;
	int fd, input_fd; /* input -1: at its end */
	uint32_t credit;
	unsigned flags; /* enum agent_start_flags */
	bool started;
	bool wanted;         /* somebody in there may wait for what is typed */
	bool bound_drops;    /* the kernel lets the agent queue descriptors */
	unsigned unanswered; /* signals passed on since the agent's last frame */
	uint32_t untold;     /* a signal that came while the agent was stuck; 0: none */
	int given_up;        /* on the agent: our exit status; 0: not */
	struct terminal terminal;
	char buf[AGENT_MAX_FRAME];
};

/* ---- signals ---- */

static const int caught[] = {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGTSTP, SIGWINCH, SIGCONT};

static struct {
	int pipe[2]; /* a byte for each signal */
	timer_t timer;
	bool have_timer;
	volatile sig_atomic_t ends_by; /* SIGTERM or SIGHUP; 0: neither has come */
	struct sigaction old[ARRAY_SIZE(caught)], old_timer;
} signals = {.pipe = {-1, -1}};

static void on_caught(int number)
{
	const struct itimerspec due = {.it_value.tv_nsec = END_MS * 1000000L};
	int saved = errno;
	char byte = (char)number;

	if ((number == SIGTERM || number == SIGHUP) && signals.have_timer && !signals.ends_by) {
		signals.ends_by = number;
		timer_settime(signals.timer, 0, &due, NULL);
	}
	if (write(signals.pipe[1], &byte, 1) == 1 || errno == EAGAIN) /* enough are under way */
		errno = saved;
}

/* The command goes on, or what we wait for does. */
static void on_timer(int number)
{
	static const char why[] = "pillion: the command has been told to end, and has not: "
				  "its command line ends without it\n";

	struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
	int status = 128 + signals.ends_by;

	(void)number;
	terminal_restore(); /* waits for no output */
	if (poll(&out, 1, 0) != 1 || write(STDERR_FILENO, why, sizeof(why) - 1) < 0)
		_exit(status);
	_exit(status);
}

static int catch_signals(void)
{
	const struct sigaction take = {.sa_handler = on_caught, .sa_flags = SA_RESTART};
	const struct sigaction end = {.sa_handler = on_timer};
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};

	if (pipe2(signals.pipe, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	signals.ends_by = 0;
	signals.have_timer = sigaction(SIGRTMIN, &end, &signals.old_timer) == 0 &&
			     timer_create(CLOCK_MONOTONIC, &event, &signals.timer) == 0;
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++) {
		sigaction(caught[i], &take, &signals.old[i]);
		if (signals.old[i].sa_handler == SIG_IGN) /* nohup's, or a shell's without jobs */
			sigaction(caught[i], &signals.old[i], NULL);
	}
	return 0;
}

static void release_signals(void)
{
	if (signals.pipe[0] < 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(caught); i++)
		sigaction(caught[i], &signals.old[i], NULL);
	if (signals.have_timer)
		timer_delete(signals.timer);
	sigaction(SIGRTMIN, &signals.old_timer, NULL);
	pil_close_p(&signals.pipe[0]);
	pil_close_p(&signals.pipe[1]);
}

/* The next signal; 0: none has come. */
static uint32_t take_signal(void)
{
	char number;

	return read(signals.pipe[0], &number, 1) == 1 ? (uint32_t)number : 0;
}

/* Is it one that a command line is told to end by? */
static bool is_fatal(uint32_t number)
{
	return number == SIGINT || number == SIGTERM || number == SIGQUIT || number == SIGHUP;
}

/* ---- the stream ---- */

/* Waits until the agent gives or takes something.  0: try again; -EINTR: the user has had enough.
 */
static int await_agent(struct attachment *a, short events)
{
	struct pollfd p[] = {{.fd = a->fd, .events = events},
			     {.fd = signals.pipe[0], .events = POLLIN}};
	uint32_t number;

	if (poll(p, 1, STUCK_MS) || poll(p, 2, -1) < 0 || p[0].revents)
		return 0;
	number = take_signal();
	if (number == SIGTSTP)
		raise(SIGSTOP);
	if (!is_fatal(number))
		return 0;
	if (a->untold || number == SIGTERM || number == SIGHUP) {
		a->given_up = 128 + (int)number;
		return -EINTR;
	}
	a->untold = number;
	return 0;
}

static void drop_begin(const struct attachment *a)
{
	if (a->bound_drops)
		queued_drop_begin();
}

static void drop_end(const struct attachment *a)
{
	int saved = errno;

	if (a->bound_drops)
		queued_drop_end();
	errno = saved;
}

static int receive_all(struct attachment *a, void *to, size_t len)
{
	char *at = to;

	while (len) {
		ssize_t n;
		int ret;

		drop_begin(a);
		n = recv(a->fd, at, len, MSG_DONTWAIT);
		drop_end(a);
		ret = n == 0 ? -EPIPE : 0;
		if (n < 0)
			ret = errno == EAGAIN || errno == EINTR ? await_agent(a, POLLIN) : -errno;
		if (ret)
			return ret;
		at += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static int send_frame(struct attachment *a, uint8_t type, const void *data, uint32_t len)
{
	struct agent_frame f = {.type = type, .len = len};
	struct iovec iov[] = {{&f, sizeof(f)}, {(void *)data, len}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

	while (iov[0].iov_len + iov[1].iov_len) {
		ssize_t n = sendmsg(a->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		int ret = 0;

		if (n < 0)
			ret = errno == EAGAIN || errno == EINTR ? await_agent(a, POLLOUT) : -errno;
		if (ret)
			return ret;
		for (struct iovec *v = iov; n > 0 && v < iov + 2; v++) {
			size_t sent = (size_t)n < v->iov_len ? (size_t)n : v->iov_len;

			v->iov_base = (char *)v->iov_base + sent;
			v->iov_len -= sent;
			n -= (ssize_t)sent;
		}
	}
	return 0;
}

static unsigned count(const char *const *list)
{
	unsigned n = 0;

	while (list && list[n])
		n++;
	return n;
}

static int ended_early(struct pil_err *err)
{
	return pil_err_say(err, EAGAIN, "the machine ended before it ran the command");
}

/* Do both lead to one pipe or file? */
static bool are_one(int a_fd, int b_fd)
{
	struct stat a, b;

	return fstat(a_fd, &a) == 0 && fstat(b_fd, &b) == 0 && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

static unsigned find_flags(struct attachment *a)
{
	const struct attach_opts *o = a->opts;
	unsigned flags = 0;

	terminal_open(&a->terminal, o->stdin_fd, o->stdout_fd, o->stderr_fd, &flags);
	if (!(flags & (AGENT_START_TTY_OUT | AGENT_START_TTY_ERR)) &&
	    are_one(o->stdout_fd, o->stderr_fd))
		flags |= AGENT_START_ONE_OUT;
	return flags | (o->shell ? AGENT_START_SHELL : 0) | (o->login ? AGENT_START_LOGIN : 0);
}

static void put_string(FILE *out, const char *s)
{
	fwrite(s, 1, strlen(s) + 1, out);
}

/* All strings of the request; heap, NULL: no memory. */
static char *make_strings(const struct attach_opts *o, size_t *bytes)
{
	char *strings = NULL;
	FILE *out = open_memstream(&strings, bytes);

	if (!out)
		return NULL;
	put_string(out, o->user ? o->user : "");
	put_string(out, o->cwd ? o->cwd : "");
	for (const char *const *arg = o->args; arg && *arg; arg++)
		put_string(out, *arg);
	for (const char *const *env = o->env; env && *env; env++)
		put_string(out, *env);
	if (fclose(out) == 0)
		return strings;
	free(strings);
	return NULL;
}

static int send_start(struct attachment *a, struct pil_err *err)
{
	const struct attach_opts *o = a->opts;
	size_t bytes = 0, part = sizeof(a->buf) - sizeof(struct agent_start), sent;
	_auto_free char *strings = make_strings(o, &bytes);
	struct agent_start start;
	int ret;

	if (!strings || bytes > AGENT_MAX_STRINGS)
		return pil_err_set(err, strings ? E2BIG : ENOMEM, "run a command");
	a->flags = find_flags(a);
	a->wanted = !(a->flags & AGENT_START_ASKED);
	start = (struct agent_start){.version = AGENT_VERSION,
				     .flags = (uint16_t)a->flags,
				     .n_args = count(o->args),
				     .n_env = count(o->env),
				     .strings_bytes = (uint32_t)bytes,
				     .winsize = terminal_size(&a->terminal),
				     .termios = terminal_settings(&a->terminal)};
	sent = bytes < part ? bytes : part;
	memcpy(a->buf, &start, sizeof(start));
	memcpy(a->buf + sizeof(start), strings, sent);
	ret = send_frame(a, AGENT_START, a->buf, (uint32_t)(sizeof(start) + sent));
	for (; !ret && sent < bytes; sent += part) {
		part = bytes - sent < sizeof(a->buf) ? bytes - sent : sizeof(a->buf);
		ret = send_frame(a, AGENT_START_MORE, strings + sent, (uint32_t)part);
	}
	return ret ? ended_early(err) : 0;
}

/* ---- what arrives ---- */

static int on_input(struct attachment *a)
{
	size_t want = a->credit < sizeof(a->buf) ? a->credit : sizeof(a->buf);
	ssize_t n = read(a->input_fd, a->buf, want);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n <= 0) {
		a->input_fd = -1;
		return send_frame(a, AGENT_STDIN, NULL, 0);
	}
	a->credit -= (uint32_t)n;
	return send_frame(a, AGENT_STDIN, a->buf, (uint32_t)n);
}

static void on_keys(struct attachment *a)
{
	ssize_t n = read(a->terminal.keys_fd, a->buf, sizeof(a->buf));

	if (n > 0)
		send_frame(a, AGENT_KEYS, a->buf, (uint32_t)n);
	else if (n == 0 || (errno != EINTR && errno != EAGAIN))
		pil_close_p(&a->terminal.keys_fd);
}

/* May what is typed be read now?  Sets the terminal accordingly. */
static bool takes_keys(struct attachment *a)
{
	bool reads = a->terminal.is_input || a->terminal.draws;
	bool take = a->started && a->wanted && a->terminal.fd >= 0 && reads;

	if (!take && !a->terminal.raw)
		return false;
	if (take && a->flags & AGENT_START_ASKED && !terminal_is_ours(&a->terminal))
		kill(0, SIGTTIN); /* as a program gets it that reads in the background */
	take = take && terminal_is_ours(&a->terminal);
	terminal_set_raw(&a->terminal, take);
	return take;
}

static void pass_on(struct attachment *a, uint32_t number)
{
	send_frame(a, AGENT_SIGNAL, &number, sizeof(number));
}

static void tell_signal(struct attachment *a)
{
	uint32_t number = a->untold;

	a->untold = 0;
	pass_on(a, number);
}

/* It is passed on in vain, as it seems. */
static bool had_enough(struct attachment *a, uint32_t number)
{
	return ++a->unanswered > (number == SIGINT ? 2 : 1);
}

/* Ours, and with us the command: what the shell does to its job. */
static void stop(struct attachment *a)
{
	if (a->started)
		pass_on(a, SIGSTOP);
	terminal_set_raw(&a->terminal, false);
	raise(SIGSTOP);
}

static void tell_size(struct attachment *a)
{
	struct agent_winsize size = terminal_size(&a->terminal);

	if (a->terminal.fd >= 0)
		send_frame(a, AGENT_WINSIZE, &size, sizeof(size));
}

/* A signal passed on, or, while nothing runs yet that could take it, our own end. */
static void on_signal(struct attachment *a, int *status)
{
	uint32_t number = take_signal();

	if (number == SIGWINCH) {
		tell_size(a);
	} else if (number == SIGTSTP) {
		stop(a);
	} else if (number == SIGCONT) {
		terminal_forget(&a->terminal);
		if (a->started)
			pass_on(a, number);
		tell_size(a);
	} else if (number && a->started && !had_enough(a, number)) {
		pass_on(a, number);
	} else if (number) {
		*status = 128 + (int)number;
	}
}

/* All of it, also where somebody who shares our output has made it non-blocking.  0 or -errno. */
static int write_output(int fd, const char *data, size_t len)
{
	while (len) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		ssize_t n = write(fd, data, len);

		if (n < 0 && errno == EAGAIN)
			poll(&p, 1, -1);
		else if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

/* What the command, or its terminal, prints.  0 or -errno. */
static int on_output(struct attachment *a, uint8_t type, size_t len)
{
	int fd = type == AGENT_TERMINAL ? a->terminal.fd
		 : type == AGENT_STDOUT ? a->opts->stdout_fd
					: a->opts->stderr_fd;
	bool to_terminal =
		type == AGENT_TERMINAL ||
		a->flags & (type == AGENT_STDOUT ? AGENT_START_TTY_OUT : AGENT_START_TTY_ERR);

	if (to_terminal)
		len = terminal_trim(&a->terminal, a->buf, len);
	return write_output(fd, a->buf, len);
}

/* Takes a frame: writes output; *status is set with the last one.  0, or -errno. */
static int on_frame(struct attachment *a, int *status, struct pil_err *err)
{
	struct agent_frame f;
	uint32_t value = 0;
	int ret = receive_all(a, &f, sizeof(f));

	if (!ret && !agent_frame_valid(&f))
		ret = -EPROTO;
	if (!ret)
		ret = receive_all(a, a->buf, f.len);
	if (a->given_up)
		return 0;
	if (ret)
		return a->started ? pil_err_say(err, ECONNRESET, "the machine has ended")
				  : ended_early(err);
	a->unanswered = 0;
	if (f.len >= sizeof(value))
		memcpy(&value, a->buf, sizeof(value));
	switch (f.type) {
	case AGENT_STARTED:
		if (a->started)
			return pil_err_say(err, EPROTO, "the machine's agent starts it twice");
		a->started = true;
		a->credit = AGENT_CREDIT;
		return 0;
	case AGENT_WANTED:
		a->wanted = value != 0;
		return 0;
	case AGENT_CREDIT_MORE:
		a->credit = value <= AGENT_CREDIT - a->credit ? a->credit + value : AGENT_CREDIT;
		return 0;
	case AGENT_STDOUT:
	case AGENT_STDERR:
	case AGENT_TERMINAL:
		ret = on_output(a, f.type, f.len);
		/* Our reader is gone: so is the command's, as with a pipe between them. */
		if (ret == -EPIPE)
			*status = 128 + SIGPIPE;
		else if (ret)
			return pil_err_set(err, -ret, "write what the command prints");
		return 0;
	case AGENT_EXIT:
		*status = (int)(value & 0xff);
		return 0;
	case AGENT_ERROR:
		if (f.len == 0 || !a->buf[0])
			return pil_err_say(err, EPROTO,
					   "run a command: the machine does not say why not");
		return pil_err_say(err, ENOENT, "%.*s", (int)(f.len < 400 ? f.len : 400), a->buf);
	default:
		return pil_err_say(err, EPROTO, "the machine's agent speaks another language");
	}
}

static int no_answer(struct pil_err *err)
{
	pil_err_hint(err, "pillion --shutdown --force");
	return pil_err_say(err, ETIMEDOUT, "run a command: no answer from the machine after %d s",
			   START_MS / 1000);
}

/* What of it is ready is handled in the order of @p: the stream, signals, input, keys. */
static int handle(struct attachment *a, const struct pollfd *p, int *status, struct pil_err *err)
{
	int ret = p[0].revents ? on_frame(a, status, err) : 0;

	if (a->untold && !ret && *status < 0)
		tell_signal(a);
	if (!ret && *status < 0 && p[1].revents) {
		on_signal(a, status);
		return 0; /* we may have been stopped since: ask whose the terminal is */
	}
	if (!ret && *status < 0 && p[2].revents)
		on_input(a);
	if (!ret && *status < 0 && p[3].revents)
		on_keys(a);
	return ret;
}

static int run_loop(struct attachment *a, struct pil_err *err)
{
	bool from_terminal = a->flags & AGENT_START_TTY_IN;
	int status = -1;

	while (status < 0) {
		bool keys = takes_keys(a);
		bool input =
			a->started && a->credit && a->input_fd >= 0 && (keys || !from_terminal);
		struct pollfd p[] = {{.fd = a->fd, .events = POLLIN},
				     {.fd = signals.pipe[0], .events = POLLIN},
				     {.fd = input ? a->input_fd : -1, .events = POLLIN},
				     {.fd = keys ? a->terminal.keys_fd : -1, .events = POLLIN}};
		bool waits = a->wanted && a->terminal.fd >= 0 && !keys; /* for the terminal */
		int n = poll(p, ARRAY_SIZE(p), !a->started ? START_MS : waits ? TERMINAL_MS : -1);
		int ret;

		if ((n < 0 && errno == EINTR) || (n == 0 && a->started))
			continue;
		if (n < 0)
			return pil_err_set(err, errno, "wait for the command");
		if (n == 0)
			return no_answer(err);
		ret = handle(a, p, &status, err);
		if (ret || a->given_up)
			return ret ? ret : a->given_up;
	}
	return status;
}

int attach_run(int fd, const struct attach_opts *opts, struct pil_err *err)
{
	struct attachment *a = calloc(1, sizeof(*a));
	int ret;

	if (!a) {
		close(fd);
		return pil_err_set(err, ENOMEM, "run a command");
	}
	a->opts = opts;
	a->fd = fd;
	a->terminal.fd = a->terminal.keys_fd = -1;
	a->bound_drops = queued_fds_refuse(fd) != 0;
	a->input_fd = opts->stdin_fd;
	signal(SIGPIPE, SIG_IGN);
	ret = catch_signals();
	ret = ret ? pil_err_set(err, -ret, "run a command") : send_start(a, err);
	if (!ret)
		ret = run_loop(a, err);
	terminal_close(&a->terminal);
	drop_begin(a);
	close(a->fd);
	drop_end(a);
	release_signals();
	free(a);
	return ret;
}
