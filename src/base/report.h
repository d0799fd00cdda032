/* SPDX-License-Identifier: Apache-2.0
 *
 * report.h -- how a program of ours tells who started it why it failed.
 *
 * It goes by a descriptor of its own (option --report-fd N), never by what the program prints: into
 * that others may write, a guest's console for one.  Both ends are of one build. */
#ifndef PIL_REPORT_H
#define PIL_REPORT_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

/* For the parent: a pipe.  The end to read from, or -errno; *@write_fd is the child's, to be closed
 * here once it runs. */
int report_open(int *write_fd, struct pil_err *err) PIL_MUST_CHECK;

/* For the child: cuts `--report-fd N` off the end of its arguments.  -1: it is not there. */
int report_take_fd(int *argc, char **argv);

/* For the child: says @err.  -1 for @fd is fine.  May be called by a handler of signals. */
void report_send(int fd, const struct pil_err *err);

/* For the parent, once the child has ended or answered: what it has said, ready to be shown; its
 * control characters are escaped.  @fd may be a file.  False, and @err as it was: it has said
 * nothing, or not a report. */
bool report_receive(int fd, struct pil_err *err);

#endif
