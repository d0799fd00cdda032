/* SPDX-License-Identifier: Apache-2.0
 *
 * terminal.h -- the terminal of a command line, which it may share with other programs. */
#ifndef PIL_TERMINAL_H
#define PIL_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <termios.h>

#include "agent/agent.h"

struct terminal {
	int fd;        /* -1: there is none */
	int keys_fd;   /* what is typed, where the input is no terminal; -1: nothing comes */
	bool own_fd;   /* keys_fd was opened here */
	bool shared;   /* with others that read it or write to it: they get their signals, and their
			  lines an end */
	bool draws;    /* the command's output goes there: nobody else's lines need an end */
	bool is_input; /* the command's input comes from there */
	bool raw;
	struct termios saved; /* as it was */
	struct termios set;   /* as we have set it; zero: we have not */
};

/* @in, @out, @err: the streams, -1: none.  Finds the terminal among them.  @flags gets
 * AGENT_START_TTY_* for those that are it, and AGENT_START_ASKED where others may want its keys. */
void terminal_open(struct terminal *t, int in, int out, int err, unsigned *flags);
void terminal_close(struct terminal *t); /* puts it back */

/* May we read from it and set it, as the shell sees it? */
bool terminal_is_ours(const struct terminal *t);

/* Lets every key through as it is, or puts the terminal back as it was.  Only while it is ours, and
 * not back where somebody else has set it meanwhile. */
void terminal_set_raw(struct terminal *t, bool raw);

/* Puts the raw terminal back; may be called in a signal's handler. */
void terminal_restore(void);

/* @text comes from a terminal, which has ended its lines with CR LF.  Takes the CRs away where ours
 * adds them itself; the new length. */
size_t terminal_trim(const struct terminal *t, char *text, size_t len);

/* Somebody else may have set it meanwhile: that is how it was, from now on. */
void terminal_forget(struct terminal *t);

struct agent_winsize terminal_size(const struct terminal *t);
struct agent_termios terminal_settings(const struct terminal *t);

#endif
