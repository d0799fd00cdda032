/* SPDX-License-Identifier: Apache-2.0
 *
 * capture.h -- running a program to its end and keeping what it prints. */
#ifndef PIL_CAPTURE_H
#define PIL_CAPTURE_H

#include <signal.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"

enum { CAPTURE_MAX_BYTES = 1 << 20 };

struct capture_opts {
	char *const *argv;
	int stdin_fd; /* borrowed; -1: none */
	int timeout_ms;
	const volatile sig_atomic_t
		*stop; /* nonzero: stop the program, fail with -EINTR; or NULL */
};

struct capture {
	char *out; /* heap, NUL-terminated; what it wrote to standard output */
	size_t len;
	double seconds; /* from before its start until its end */
};

/* 0 only when the program exits with status 0; otherwise -errno, with @err quoting the last line
 * of its standard error.  The caller frees @result->out. */
int capture_run(const struct capture_opts *opts, struct capture *result,
		struct pil_err *err) PIL_MUST_CHECK;

#endif
