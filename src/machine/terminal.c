/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: while a command reads the terminal, it is raw: Ctrl-C is a character that
 * the machine's terminal makes a signal of.  Where only some of our streams are the terminal, as in
 * a pipe to a pager, others read it and write to it too.  Then it is raw only while the command
 * waits for keys; and even then signals go to all of the pipe, and lines end as they did.
 *
 * Where neither our input nor our output is the terminal, nothing is read from it: what is typed is
 * for somebody else in the pipe, and the machine must not have it.
 *
 * A job in the background may not set its terminal: it would be stopped.  Whose it is may change at
 * any time, so it is asked each time.  No change throws away what was typed ahead. */
#include "machine/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"

static struct terminal *to_restore; /* for atexit(): exit() from elsewhere */

bool terminal_is_ours(const struct terminal *t)
{
	pid_t group = t->fd < 0 ? -1 : tcgetpgrp(t->fd);

	/* < 0: it is not the terminal that we were started from */
	return t->fd >= 0 && (group == getpgrp() || (group < 0 && t->is_input));
}

static bool same(const struct termios *a, const struct termios *b)
{
	return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_lflag == b->c_lflag;
}

/* Is the terminal still as we have set it?  Somebody else may have, who asks for a password. */
static bool as_we_set_it(const struct terminal *t)
{
	struct termios now;

	return !tcgetattr(t->fd, &now) && same(&now, &t->set);
}

void terminal_restore(void)
{
	if (to_restore && to_restore->raw && terminal_is_ours(to_restore) &&
	    as_we_set_it(to_restore))
		tcsetattr(to_restore->fd, TCSANOW, &to_restore->saved);
	to_restore = NULL;
}

void terminal_open(struct terminal *t, int in, int out, int err, unsigned *flags)
{
	static const unsigned names[] = {AGENT_START_TTY_IN, AGENT_START_TTY_OUT,
					 AGENT_START_TTY_ERR};
	const int fds[] = {in, out, err};

	*t = (struct terminal){.fd = -1, .keys_fd = -1};
	for (int i = 0; i < 3; i++) {
		if (fds[i] < 0 || !isatty(fds[i]))
			continue;
		*flags |= names[i];
		t->fd = fds[i]; /* the last one: an input may be open for reading alone */
	}
	if (t->fd < 0)
		return;
	t->shared = !(*flags & AGENT_START_TTY_IN) || !(*flags & AGENT_START_TTY_OUT);
	t->draws = *flags & AGENT_START_TTY_OUT;
	t->is_input = *flags & AGENT_START_TTY_IN;
	if (t->shared || !terminal_is_ours(t))
		*flags |= AGENT_START_ASKED;
	if (!t->is_input && t->draws) {
		t->keys_fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		t->own_fd = true;
	}
}

void terminal_set_raw(struct terminal *t, bool raw)
{
	static bool registered;
	struct termios settings, now;

	if (raw == t->raw || !terminal_is_ours(t) || tcgetattr(t->fd, &now))
		return;
	if (!raw && !same(&now, &t->set)) {
		terminal_forget(t);
		return;
	}
	if (raw && !same(&now, &t->set)) /* else it was continued without having been stopped */
		t->saved = now;
	settings = t->saved;
	if (raw) {
		cfmakeraw(&settings);
		if (t->shared) {
			settings.c_lflag |= t->saved.c_lflag & ISIG;
			if (!t->draws)
				settings.c_oflag = t->saved.c_oflag;
		}
	}
	if (tcsetattr(t->fd, TCSANOW, &settings) || tcgetattr(t->fd, &now))
		return;
	t->set = raw ? now : (struct termios){0};
	t->raw = raw;
	to_restore = raw ? t : NULL;
	if (raw && !registered)
		registered = atexit(terminal_restore) == 0;
}

size_t terminal_trim(const struct terminal *t, char *text, size_t len)
{
	struct termios settings;
	size_t n = 0;

	if (t->fd < 0 || tcgetattr(t->fd, &settings) || !(settings.c_oflag & OPOST) ||
	    !(settings.c_oflag & ONLCR))
		return len;
	for (size_t i = 0; i < len; i++)
		if (text[i] != '\r' || i + 1 == len || text[i + 1] != '\n')
			text[n++] = text[i];
	return n;
}

void terminal_forget(struct terminal *t)
{
	t->raw = false;
	to_restore = NULL;
}

void terminal_close(struct terminal *t)
{
	terminal_set_raw(t, false);
	to_restore = NULL;
	if (t->own_fd)
		pil_close_p(&t->keys_fd);
}

struct agent_winsize terminal_size(const struct terminal *t)
{
	struct winsize w = {0};

	if (t->fd < 0 || ioctl(t->fd, TIOCGWINSZ, &w))
		return (struct agent_winsize){.rows = 24, .cols = 80};
	return (struct agent_winsize){w.ws_row, w.ws_col, w.ws_xpixel, w.ws_ypixel};
}

struct agent_termios terminal_settings(const struct terminal *t)
{
	struct agent_termios to = {0};
	struct termios from;

	if (t->fd < 0 || tcgetattr(t->fd, &from))
		return to;
	to = (struct agent_termios){from.c_iflag, from.c_oflag, from.c_cflag, from.c_lflag, {0}};
	memcpy(to.cc, from.c_cc, sizeof(to.cc) - 1);
	return to;
}
