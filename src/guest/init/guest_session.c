/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: nothing blocks, so one command cannot hold up another.  Four descriptors
 * take part: the stream, and the command's input, output and error (with a terminal the last three
 * are one).  Data moves one frame at a time:
 *
 *   stream -> input: data goes through a ring as large as the credit the client has, so the stream
 *     is always read: a signal, a window size or the client's end never waits for a command that
 *     does not read its input.  What the command has taken is granted anew.
 *   output -> stream: the command's pipe is read only when the stream has taken what was read
 * before
 *     (`out` is empty), so a slow client slows the command down and nothing piles up here.
 *
 * The end: the command is reaped, then what it left in its pipes is read until they are empty for
 * now (a background process may hold them open for ever), then EXIT is sent and the stream closed.
 * A client that goes away before that hangs the command up. */
#include "guest/init/guest_session.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/exposed.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "guest/init/passwd.h"
#include "guest/init/setup.h"

enum { N_POINTERS = 2 * AGENT_MAX_ARGS + 2, FRAMES_PER_TURN = 64 };

struct guest_session {
	struct guest *guest;
	struct list link;                                /* guest::sessions */
	struct loop_source stream, input, output, error; /* fd -1: closed */
	bool tty, started, reaped;
	pid_t pid;
	int status;
	/* From the stream: the frame being read. */
	struct agent_frame frame;
	size_t have; /* bytes of header + body read */
	char *body;  /* AGENT_MAX_FRAME + 1 */
	/* For the command's input: a ring of AGENT_CREDIT bytes. */
	char *in;
	size_t in_start, in_len;
	uint32_t credit_owed; /* taken by the command, not yet granted anew */
	bool in_ends;         /* after what is in the ring */
	/* To the stream. */
	char *out; /* header + AGENT_MAX_FRAME */
	size_t out_len, out_sent;
	bool final; /* `out` holds the last frame */
};

static void pump(struct guest_session *s);

static void close_source(struct loop_source *source)
{
	loop_remove(source);
	pil_close_p(&source->fd);
}

static void session_destroy(struct guest_session *s)
{
	struct guest *guest = s->guest;

	if (s->started && !s->reaped)
		kill(-s->pid, SIGHUP);
	close_source(&s->stream);
	if (s->input.fd == s->output.fd)
		s->input.fd = -1; /* a terminal */
	close_source(&s->input);
	close_source(&s->output);
	close_source(&s->error);
	list_remove(&s->link);
	free(s->body);
	free(s->in);
	free(s->out);
	free(s);
	if (list_empty(&guest->sessions))
		guest->became_idle(guest);
}

/* ---- to the client ---- */

static void queue_frame(struct guest_session *s, uint8_t type, const void *data, uint32_t len)
{
	struct agent_frame f = {.type = type, .len = len};

	memcpy(s->out + s->out_len, &f, sizeof(f));
	if (data)
		memcpy(s->out + s->out_len + sizeof(f), data, len);
	s->out_len += sizeof(f) + len;
}

/* 1: all sent; 0: the stream is full; < 0: gone. */
static int send_out(struct guest_session *s)
{
	while (s->out_sent < s->out_len) {
		ssize_t n = send(s->stream.fd, s->out + s->out_sent, s->out_len - s->out_sent,
				 MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		s->out_sent += (size_t)n;
	}
	s->out_len = s->out_sent = 0;
	return 1;
}

/* Reads a piece of the command's output into `out`.  False: nothing there now, or the end. */
static bool take_output(struct guest_session *s, struct loop_source *from, uint8_t type)
{
	struct agent_frame f = {.type = type};
	ssize_t n;

	if (from->fd < 0)
		return false;
	do {
		n = read(from->fd, s->out + sizeof(f), AGENT_MAX_FRAME);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) { /* end of file; a terminal says EIO when the last user has closed it */
		if (from->fd == s->input.fd) {
			loop_remove(&s->input);
			s->input.fd = -1;
		}
		close_source(from);
		return false;
	}
	f.len = (uint32_t)n;
	memcpy(s->out, &f, sizeof(f));
	s->out_len = sizeof(f) + (size_t)n;
	return true;
}

static void queue_exit(struct guest_session *s)
{
	uint32_t status = WIFSIGNALED(s->status) ? 128 + (uint32_t)WTERMSIG(s->status)
						 : (uint32_t)WEXITSTATUS(s->status);

	queue_frame(s, AGENT_EXIT, &status, sizeof(status));
	s->final = true;
}

/* Ends the session with a sentence for the user. */
static void refuse(struct guest_session *s, const char *text)
{
	queue_frame(s, AGENT_ERROR, text, (uint32_t)strlen(text));
	s->final = true;
	pump(s);
}

/* ---- starting the command ---- */

struct launch {
	struct agent_request request;
	struct user user;
	int in_fd, out_fd, err_fd; /* the command's ends */
	char cwd[1024];
};

static void set_environment(const struct guest_session *s, const struct launch *l)
{
	static const char path[] = EXPOSED_PLAIN_PATH ":/usr/games:/usr/local/games";
	static const char with_tools[] =
		EXPOSED_PLAIN_PATH ":/usr/games:/usr/local/games:" EXPOSED_MORE_PATH;
	const struct wsl_conf *conf = &s->guest->conf;

	clearenv();
	setenv("PATH", conf->gpu_enabled ? with_tools : path, 1);
	setenv("HOME", l->user.home, 1);
	setenv("USER", l->user.name, 1);
	setenv("LOGNAME", l->user.name, 1);
	setenv("SHELL", l->user.shell, 1);
	setenv("LANG", "C.UTF-8", 1);
	setenv("WSL_DISTRO_NAME", s->guest->distro, 1);
	setup_variables(conf->gpu_enabled);
	for (const char *const *e = s->guest->env; e && *e; e++)
		putenv((char *)*e);
	for (const char **e = l->request.env; *e; e++)
		if (strchr(*e, '=') && **e != '=')
			putenv((char *)*e);
}

/* Joins arguments with blanks: what `pillion -- CMD ARGS` hands to the shell, as wsl does. */
static char *join(const char **args)
{
	char *line = str_printf("%s", "");

	for (; *args; args++) {
		char *longer = str_printf("%s%s%s", line, line[0] ? " " : "", *args);

		free(line);
		line = longer;
	}
	return line;
}

static PIL_NORETURN void run_command(const struct guest_session *s, struct launch *l)
{
	const char *shell_argv[4] = {0};
	const char **argv = l->request.args;
	const char *file;
	char login_name[260];
	sigset_t none;

	sigemptyset(&none);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (s->tty)
		ioctl(l->in_fd, TIOCSCTTY, 0);
	dup2(l->in_fd, 0);
	dup2(l->out_fd, 1);
	dup2(l->err_fd, 2);
	set_environment(s, l);
	if (setgroups((size_t)l->user.n_groups, l->user.groups) || setgid(l->user.gid) ||
	    setuid(l->user.uid))
		_exit(126);
	if (chdir(l->cwd)) {
		if (l->request.cwd[0])
			dprintf(2, "pillion: go to folder '%s': %s; in the home folder instead\n",
				l->cwd, strerror(errno));
		if (chdir(l->user.home) && chdir("/"))
			_exit(126);
	}
	if (l->request.start.flags & AGENT_START_SHELL) {
		const char *base = strrchr(l->user.shell, '/');
		bool login = l->request.start.flags & AGENT_START_LOGIN;

		snprintf(login_name, sizeof(login_name), "%s%.250s", login ? "-" : "",
			 base ? base + 1 : l->user.shell);
		shell_argv[0] = login_name;
		if (argv[0]) {
			shell_argv[1] = "-c";
			shell_argv[2] = join(argv);
		}
		file = l->user.shell;
		argv = shell_argv;
	} else {
		file = argv[0];
	}
	execvp(file, (char *const *)argv);
	dprintf(2, "pillion: run '%s': %s\n", file, strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static int open_terminal(struct guest_session *s, struct launch *l)
{
	const struct agent_winsize *w = &l->request.start.winsize;
	struct winsize size = {.ws_row = w->rows, .ws_col = w->cols};
	int master, slave;

	if (openpty(&master, &slave, NULL, NULL, &size))
		return -errno;
	if (fchown(slave, l->user.uid, (gid_t)-1))
		log_dbg("own the terminal: %s", strerror(errno));
	fcntl(master, F_SETFD, FD_CLOEXEC);
	fcntl(slave, F_SETFD, FD_CLOEXEC);
	s->input.fd = s->output.fd = master;
	l->in_fd = l->out_fd = l->err_fd = slave;
	return 0;
}

static int open_pipes(struct guest_session *s, struct launch *l)
{
	int in[2], out[2], err[2];

	if (pipe2(in, O_CLOEXEC))
		return -errno;
	l->in_fd = in[0];
	s->input.fd = in[1];
	if (pipe2(out, O_CLOEXEC))
		return -errno;
	l->out_fd = out[1];
	s->output.fd = out[0];
	if (pipe2(err, O_CLOEXEC))
		return -errno;
	l->err_fd = err[1];
	s->error.fd = err[0];
	return 0;
}

/* Watches @source for @events; for none, not at all: a hung-up descriptor would wake us for ever.
 */
static void watch(struct guest_session *s, struct loop_source *source, uint32_t events)
{
	int ret = 0;

	if (source->fd < 0)
		return;
	if (!events)
		loop_remove(source);
	else if (source->loop)
		ret = loop_modify(source, events);
	else
		ret = loop_add(s->guest->loop, source, events);
	if (ret)
		log_warn("watch a command: %s", strerror(-ret));
}

/* Where the command starts: what was asked for if it is there, else the home. */
static void choose_cwd(struct launch *l)
{
	const char *cwd = l->request.cwd;

	if (cwd[0] == '~' && (cwd[1] == '/' || cwd[1] == '\0'))
		snprintf(l->cwd, sizeof(l->cwd), "%.500s%.500s", l->user.home, cwd + 1);
	else
		snprintf(l->cwd, sizeof(l->cwd), "%s", cwd[0] ? cwd : l->user.home);
}

static void close_ends(struct launch *l, bool tty)
{
	pil_close_p(&l->in_fd);
	if (!tty) {
		pil_close_p(&l->out_fd);
		pil_close_p(&l->err_fd);
	}
}

/* What is wrong with /etc/wsl.conf is said to whoever runs the first command. */
static void queue_complaints(struct guest_session *s)
{
	char *complaints = s->guest->conf.complaints;
	_auto_free char *text = NULL;

	if (!complaints[0])
		return;
	text = str_printf("pillion: /etc/wsl.conf of this machine:\n%s", complaints);
	queue_frame(s, AGENT_STDERR, text, (uint32_t)strlen(text));
	complaints[0] = '\0';
}

static void start(struct guest_session *s)
{
	_auto_free const char **storage = calloc(N_POINTERS, sizeof(*storage));
	struct launch l = {.in_fd = -1, .out_fd = -1, .err_fd = -1};
	const char *name;
	int ret;

	if (!storage ||
	    !agent_request_parse(&l.request, s->body, s->frame.len, storage, N_POINTERS) ||
	    (!l.request.args[0] && !(l.request.start.flags & AGENT_START_SHELL))) {
		refuse(s, "malformed request");
		return;
	}
	name = l.request.user[0]                ? l.request.user
	       : s->guest->conf.default_user[0] ? s->guest->conf.default_user
						: s->guest->default_user;
	if (!passwd_find(name, &l.user)) {
		char text[400];

		snprintf(text, sizeof(text),
			 "there is no user '%.200s' in this machine; -u root is always there",
			 name);
		refuse(s, text);
		return;
	}
	choose_cwd(&l);
	setup_ollama(&s->guest->conf);
	s->tty = l.request.start.flags & AGENT_START_TTY;
	ret = s->tty ? open_terminal(s, &l) : open_pipes(s, &l);
	if (!ret) {
		s->pid = fork();
		if (s->pid == 0)
			run_command(s, &l);
		ret = s->pid < 0 ? -errno : 0;
	}
	close_ends(&l, s->tty);
	if (ret) {
		refuse(s, strerror(-ret));
		return;
	}
	s->started = true;
	pil_set_nonblock(s->output.fd, true);
	pil_set_nonblock(s->error.fd, true);
	pil_set_nonblock(s->input.fd, true);
	queue_complaints(s);
	queue_frame(s, AGENT_STARTED, NULL, 0);
	pump(s);
}

/* ---- from the client ---- */

static void set_winsize(struct guest_session *s)
{
	struct agent_winsize w;
	struct winsize size = {0};

	if (!s->tty || s->output.fd < 0 || s->frame.len != sizeof(w))
		return;
	memcpy(&w, s->body, sizeof(w));
	size.ws_row = w.rows;
	size.ws_col = w.cols;
	ioctl(s->output.fd, TIOCSWINSZ, &size);
}

static void send_signal(struct guest_session *s)
{
	uint32_t signal_number;

	if (!s->started || s->reaped || s->frame.len != sizeof(signal_number))
		return;
	memcpy(&signal_number, s->body, sizeof(signal_number));
	if (signal_number > 0 && signal_number < NSIG)
		kill(-s->pid, (int)signal_number);
}

static void end_input(struct guest_session *s)
{
	static const char eof = 4; /* ^D */

	if (s->tty && s->output.fd >= 0) {
		if (write(s->output.fd, &eof, 1) != 1)
			log_dbg("end of input not taken");
	} else if (!s->tty) {
		close_source(&s->input);
	}
}

/* Hands the command what it takes now of its input. */
static void drain_input(struct guest_session *s)
{
	while (s->in_len) {
		size_t to_end = AGENT_CREDIT - s->in_start;
		int fd = s->tty ? s->output.fd : s->input.fd;
		ssize_t n = fd < 0 ? (ssize_t)s->in_len /* nobody reads it any more: swallow */
				   : write(fd, s->in + s->in_start,
					   s->in_len < to_end ? s->in_len : to_end);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) { /* the command has closed its input */
			if (!s->tty)
				close_source(&s->input);
			n = (ssize_t)s->in_len;
		}
		s->in_start = (s->in_start + (size_t)n) % AGENT_CREDIT;
		s->in_len -= (size_t)n;
		s->credit_owed += (uint32_t)n;
	}
	if (s->in_ends)
		end_input(s);
	s->in_ends = false;
}

/* Takes the data of the STDIN frame in `body`.  < 0: more than the client may send. */
static int take_input(struct guest_session *s)
{
	size_t len = s->frame.len, at = (s->in_start + s->in_len) % AGENT_CREDIT;
	size_t first = len < AGENT_CREDIT - at ? len : AGENT_CREDIT - at;

	if (!s->started || len > AGENT_CREDIT - s->in_len - s->credit_owed)
		return -EPROTO;
	if (len == 0)
		s->in_ends = true;
	memcpy(s->in + at, s->body, first);
	memcpy(s->in, s->body + first, len - first);
	s->in_len += len;
	drain_input(s);
	return 0;
}

/* Handles the complete frame in `body`.  < 0: it breaks a rule. */
static int handle_frame(struct guest_session *s)
{
	switch (s->frame.type) {
	case AGENT_START:
		if (s->started)
			return -EPROTO;
		start(s);
		return 0;
	case AGENT_STDIN:
		return take_input(s);
	case AGENT_WINSIZE:
		set_winsize(s);
		return 0;
	case AGENT_SIGNAL:
		send_signal(s);
		return 0;
	default:
		return -EPROTO;
	}
}

/* Reads on the current frame.  1: complete; 0: more later; < 0: the end. */
static int read_frame(struct guest_session *s)
{
	for (;;) {
		bool header = s->have < sizeof(s->frame);
		char *at = header ? (char *)&s->frame + s->have
				  : s->body + (s->have - sizeof(s->frame));
		size_t want = header ? sizeof(s->frame) - s->have
				     : sizeof(s->frame) + s->frame.len - s->have;
		ssize_t n;

		if (!header && want == 0)
			return 1;
		n = recv(s->stream.fd, at, want, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return -1;
		s->have += (size_t)n;
		if (s->have == sizeof(s->frame) && !agent_frame_valid(&s->frame))
			return -1;
	}
}

/* ---- moving data ---- */

/* Output towards the client.  < 0: the session is over. */
static int pump_out(struct guest_session *s)
{
	for (;;) {
		int sent = send_out(s);

		if (sent < 0 || (sent && s->final))
			return -1;
		if (!sent)
			return 0;
		if (s->credit_owed) {
			queue_frame(s, AGENT_CREDIT_MORE, &s->credit_owed, sizeof(s->credit_owed));
			s->credit_owed = 0;
			continue;
		}
		if (take_output(s, &s->output, AGENT_STDOUT) ||
		    take_output(s, &s->error, AGENT_STDERR))
			continue;
		if (!s->reaped)
			return 0;
		queue_exit(s);
	}
}

static int pump_in(struct guest_session *s)
{
	/* A client that never pauses gets its next turn after the others. */
	for (int i = 0; i < FRAMES_PER_TURN && !s->final; i++) {
		int got = read_frame(s);

		if (got <= 0)
			return got;
		s->have = 0;
		if (handle_frame(s) < 0)
			return -1;
	}
	return 0;
}

/* Moves what can be moved, then says what to wait for. */
static void pump(struct guest_session *s)
{
	static _Thread_local bool inside; /* start() and refuse() are called from within */

	if (inside)
		return;
	inside = true;
	drain_input(s);
	if (pump_in(s) < 0 || pump_out(s) < 0) {
		inside = false;
		session_destroy(s);
		return;
	}
	inside = false;
	watch(s, &s->stream,
	      (s->final ? 0u : (uint32_t)EPOLLIN) | (s->out_len ? (uint32_t)EPOLLOUT : 0u));
	/* A command's output is not watched while the stream is full. */
	watch(s, &s->output,
	      (s->out_len ? 0u : (uint32_t)EPOLLIN) |
		      (s->tty && s->in_len ? (uint32_t)EPOLLOUT : 0u));
	watch(s, &s->error, s->out_len ? 0u : (uint32_t)EPOLLIN);
	if (!s->tty)
		watch(s, &s->input, s->in_len ? (uint32_t)EPOLLOUT : 0u);
}

#define READY(member)                                                                              \
	static void member##_ready(struct loop_source *source, uint32_t events)                    \
	{                                                                                          \
		(void)events;                                                                      \
		pump(container_of(source, struct guest_session, member));                          \
	}
READY(stream)
READY(output)
READY(error)
READY(input)

void guest_session_create(struct guest *guest, int fd)
{
	struct guest_session *s = calloc(1, sizeof(*s));

	if (s) {
		s->body = malloc(AGENT_MAX_FRAME + 1);
		s->in = malloc(AGENT_CREDIT);
		s->out = malloc(2 * (sizeof(struct agent_frame) + AGENT_MAX_FRAME));
	}
	if (!s || !s->body || !s->in || !s->out) {
		close(fd);
		if (s) {
			free(s->body);
			free(s->in);
			free(s->out);
		}
		free(s);
		return;
	}
	s->guest = guest;
	s->stream = (struct loop_source){.fd = fd, .ready = stream_ready};
	s->input = (struct loop_source){.fd = -1, .ready = input_ready};
	s->output = (struct loop_source){.fd = -1, .ready = output_ready};
	s->error = (struct loop_source){.fd = -1, .ready = error_ready};
	list_append(&guest->sessions, &s->link);
	pil_set_nonblock(fd, true);
	if (loop_add(guest->loop, &s->stream, EPOLLIN))
		session_destroy(s);
}

void guest_session_child_ended(struct guest *guest, pid_t pid, int status)
{
	struct guest_session *s, *tmp;

	list_for_each_safe (s, tmp, &guest->sessions, link) {
		if (!s->started || s->reaped || s->pid != pid)
			continue;
		s->reaped = true;
		s->status = status;
		pump(s);
		return;
	}
}
