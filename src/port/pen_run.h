/* SPDX-License-Identifier: Apache-2.0
 *
 * pen_run.h -- running a program in its pen (pen.h) until it ends, and saying why it failed. */
#ifndef PIL_PEN_RUN_H
#define PIL_PEN_RUN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"

struct argv;
struct userns_stage;

enum { PEN_RUN_MS = 30 * 60 * 1000, PEN_MAX_OUTPUT = 1 << 20 };

/* What a program said: the end of its errors, since it may say any amount of anything; and all that
 * it printed, when that was asked for. */
struct pen_said {
	char text[1025];
	size_t n;
	char *out; /* heap; pen_said_finish() */
	size_t n_out;
	bool reported; /* a program of ours has said why it failed: */
	struct pil_err report;
};

struct pen_opts {
	int stdin_fd;            /* -1: nothing */
	int stdout_fd;           /* -1: with the errors */
	bool reports;            /* a program of ours, which takes --report-fd N at its end */
	bool capture;            /* standard output goes to pen_said.out, PEN_MAX_OUTPUT at most */
	void (*tick)(void *arg); /* called now and then while it runs; may be NULL */
	void *arg;
};

/* Binds host path @from to @to; @how is bubblewrap's option. */
void pen_bind(struct argv *a, struct userns_stage *stage, const char *how, const char *from,
	      const char *to);

/* Runs @a, a program in its pen, for PEN_RUN_MS at most.  Its exit status, or -errno. @opts may be
 * NULL. */
int pen_run(struct argv *a, struct userns_stage *stage, const struct pen_opts *opts,
	    struct pen_said *said, struct pil_err *err) PIL_MUST_CHECK;

/* Puts into @err why @what failed, by the status that pen_run() returned and by what the program
 * reported, or else by the end of what it said.  Returns -errno. */
int pen_failed(const char *what, int status, struct pen_said *said, struct pil_err *err);

void pen_said_finish(struct pen_said *said);

#endif
