/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: nothing blocks, so one command cannot hold up another.  Five descriptors
 * take part: the stream, the command's input, output and errors where these are pipes, and its
 * terminal where any of them is one.  Data moves one frame at a time:
 *
 *   stream -> input: data goes through a ring as large as the credit the client has, so the stream
 *     is always read: a signal, a window size or the client's end never waits for a command that
 *     does not read its input.  What the command has taken is granted anew.
 *   output -> stream: the command's pipe is read only when the stream has taken what was read
 *     before (`out` is empty), so a slow client slows the command down and nothing piles up here.
 *
 * A client that shares its terminal with others wants to know when the command waits for keys; a
 * timer looks (asker.h).
 *
 * The end: the command is reaped, then what it left in its pipes is read until they are empty for
 * now (a background process may hold them open for ever), then EXIT is sent and the stream closed.
 * A client that goes away before that hangs the command up. */
#include "guest/init/guest_session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "guest/init/asker.h"
#include "base/fd.h"
#include "guest/init/launch.h"
#include "base/log.h"
#include "guest/init/passwd.h"
#include "base/path.h"
#include "guest/init/setup.h"
#include "base/str.h"

enum { FRAMES_PER_TURN = 64, ASK_MS = 40, ASK_SELDOM_MS = 150, ASK_OFTEN = 100 /* times */ };

struct guest_session {
	struct guest *guest;
	struct list link;                                          /* guest::sessions */
	struct loop_source stream, input, output, error, terminal; /* fd -1: closed */
	unsigned flags;                                            /* enum agent_start_flags */
	bool started, reaped;
	pid_t pid;
	int status;
	struct loop_timer ask; /* does anybody wait for keys? */
	int asked;             /* so often */
	bool wanted;           /* what the client knows of it */
	bool tell_wanted;      /* it is to learn that this is so no more, or again */
	dev_t tty;
	char *request; /* what has come of it: request_len of request_size bytes */
	size_t request_len, request_size;
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
	loop_timer_cancel(&s->ask);
	close_source(&s->stream);
	close_source(&s->input);
	close_source(&s->output);
	close_source(&s->error);
	close_source(&s->terminal);
	list_remove(&s->link);
	free(s->request);
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

/* The user that the command runs as.  False: refused. */
static bool find_user(struct guest_session *s, const char *wanted, struct user *user)
{
	const struct guest *guest = s->guest;
	const char *name = wanted[0]                     ? wanted
			   : guest->conf.default_user[0] ? guest->conf.default_user
							 : guest->default_user;
	char text[400];

	if (passwd_find(name, user))
		return true;
	if (!wanted[0] && passwd_find("root", user)) {
		snprintf(
			text, sizeof(text),
			"pillion: the default user '%.200s' is not in this machine: root instead\n",
			name);
		queue_frame(s, AGENT_STDERR, text, (uint32_t)strlen(text));
		return true;
	}
	snprintf(text, sizeof(text),
		 "there is no user '%.200s' in this machine; -u root is always there", name);
	refuse(s, text);
	return false;
}

static void ask_later(struct guest_session *s)
{
	loop_timer_arm(s->guest->loop, &s->ask, s->asked < ASK_OFTEN ? ASK_MS : ASK_SELDOM_MS);
}

static void ask_expired(struct loop_timer *timer)
{
	struct guest_session *s = container_of(timer, struct guest_session, ask);
	enum asker found = asker_find(s->tty);

	s->asked = found == ASKER_WAITS ? 0 : s->asked + 1;
	if (s->wanted != (found != ASKER_NONE)) {
		s->wanted = !s->wanted;
		s->tell_wanted = true;
	}
	if (s->terminal.fd >= 0 && found != ASKER_UNKNOWN)
		ask_later(s);
	pump(s);
}

static void take_ends(struct guest_session *s, struct launch *l)
{
	s->input.fd = pil_take_fd(&l->in_fd);
	s->output.fd = pil_take_fd(&l->out_fd);
	s->error.fd = pil_take_fd(&l->err_fd);
	s->terminal.fd = pil_take_fd(&l->terminal_fd);
	s->flags = l->request.start.flags;
	s->tty = l->tty;
}

static void start(struct guest_session *s)
{
	struct launch l;
	struct agent_start head;
	_auto_free const char **storage = NULL;
	size_t capacity;

	memcpy(&head, s->request, sizeof(head));
	capacity = (size_t)head.n_args + head.n_env + 2;
	storage = calloc(capacity, sizeof(*storage));
	launch_init(&l);
	if (!storage ||
	    !agent_request_parse(&l.request, s->request, s->request_len, storage, capacity) ||
	    (!l.request.args[0] && !(l.request.start.flags & AGENT_START_SHELL))) {
		refuse(s, "malformed request");
		return;
	}
	if (!find_user(s, l.request.user, &l.user))
		return;
	setup_ollama(&s->guest->conf);
	setup_user(l.user.uid, l.user.gid);
	s->pid = launch_start(&l, s->guest);
	if (s->pid < 0) {
		launch_finish(&l);
		refuse(s, strerror((int)-s->pid));
		return;
	}
	s->started = true;
	take_ends(s, &l);
	queue_complaints(s);
	queue_frame(s, AGENT_STARTED, NULL, 0);
	if (s->flags & AGENT_START_ASKED && s->terminal.fd >= 0)
		ask_later(s);
	pump(s);
}

/* A request may come in several frames.  < 0: they break a rule. */
static int take_request(struct guest_session *s, bool first)
{
	struct agent_start head;

	if (s->started || first == (s->request != NULL))
		return -EPROTO;
	if (first) {
		if (!agent_start_parse(&head, s->body, s->frame.len))
			return -EPROTO;
		s->request_size = sizeof(head) + head.strings_bytes;
		s->request = malloc(s->request_size);
		if (!s->request)
			return -ENOMEM;
	}
	if (s->frame.len > s->request_size - s->request_len)
		return -EPROTO;
	memcpy(s->request + s->request_len, s->body, s->frame.len);
	s->request_len += s->frame.len;
	if (s->request_len < s->request_size)
		return 0;
	start(s);
	free(s->request);
	s->request = NULL;
	s->request_len = s->request_size = 0;
	return 0;
}

/* ---- from the client ---- */

static void set_winsize(struct guest_session *s)
{
	struct agent_winsize w;
	struct winsize size = {0};

	if (s->terminal.fd < 0 || s->frame.len != sizeof(w))
		return;
	memcpy(&w, s->body, sizeof(w));
	size = (struct winsize){w.rows, w.cols, w.width, w.height};
	ioctl(s->terminal.fd, TIOCSWINSZ, &size);
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

static bool reads_terminal(const struct guest_session *s)
{
	return s->flags & AGENT_START_TTY_IN;
}

static void end_input(struct guest_session *s)
{
	static const char eof = 4; /* ^D */

	if (!reads_terminal(s))
		close_source(&s->input);
	else if (s->terminal.fd >= 0 && write(s->terminal.fd, &eof, 1) != 1)
		log_dbg("end of input not taken");
}

/* What the terminal does not take is lost, as on any other. */
static int take_keys(struct guest_session *s)
{
	if (!s->started || reads_terminal(s))
		return -EPROTO;
	if (s->terminal.fd >= 0 && write(s->terminal.fd, s->body, s->frame.len) < 0)
		log_dbg("keys not taken: %s", strerror(errno));
	return 0;
}

/* Hands the command what it takes now of its input. */
static void drain_input(struct guest_session *s)
{
	while (s->in_len) {
		size_t to_end = AGENT_CREDIT - s->in_start;
		int fd = reads_terminal(s) ? s->terminal.fd : s->input.fd;
		ssize_t n = fd < 0 ? (ssize_t)s->in_len /* nobody reads it any more: swallow */
				   : write(fd, s->in + s->in_start,
					   s->in_len < to_end ? s->in_len : to_end);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) { /* the command has closed its input */
			if (!reads_terminal(s))
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
		return take_request(s, true);
	case AGENT_START_MORE:
		return take_request(s, false);
	case AGENT_KEYS:
		return take_keys(s);
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

/* As what the terminal's output goes to the client. */
static uint8_t terminal_type(const struct guest_session *s)
{
	if (s->flags & AGENT_START_TTY_OUT)
		return AGENT_STDOUT;
	return s->flags & AGENT_START_TTY_ERR ? AGENT_STDERR : AGENT_TERMINAL;
}

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
		if (s->tell_wanted) {
			uint32_t wanted = s->wanted;

			queue_frame(s, AGENT_WANTED, &wanted, sizeof(wanted));
			s->tell_wanted = false;
			continue;
		}
		if (take_output(s, &s->output, AGENT_STDOUT) ||
		    take_output(s, &s->error, AGENT_STDERR) ||
		    take_output(s, &s->terminal, terminal_type(s)))
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
	watch(s, &s->output, s->out_len ? 0u : (uint32_t)EPOLLIN);
	watch(s, &s->error, s->out_len ? 0u : (uint32_t)EPOLLIN);
	watch(s, &s->terminal,
	      (s->out_len ? 0u : (uint32_t)EPOLLIN) |
		      (reads_terminal(s) && s->in_len ? (uint32_t)EPOLLOUT : 0u));
	watch(s, &s->input, !reads_terminal(s) && s->in_len ? (uint32_t)EPOLLOUT : 0u);
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
READY(terminal)
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
	s->terminal = (struct loop_source){.fd = -1, .ready = terminal_ready};
	s->ask.expired = ask_expired;
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
