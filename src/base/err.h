/* SPDX-License-Identifier: Apache-2.0
 *
 * err.h -- a failure report: what was being done, to which object, and why it did not work.
 *
 * The caller owns the struct (usually on its stack, zero-initialised); nothing is allocated.  A
 * function that takes one fills it and returns -errno; callers add context on the way up with
 * pil_err_prefix().  Passing NULL is allowed everywhere and drops the text. */
#ifndef PIL_ERR_H
#define PIL_ERR_H

#include "base/compiler.h"

struct pil_err {
	int code;       /* errno value, 0 while nothing failed */
	char msg[508];  /* "open disk 'x': Permission denied", one line */
	char hint[252]; /* what the user can type or do about it; may be empty */
};

/* Stores the formatted message followed by ": strerror(@code)".  Returns -@code.  A full disk gets
 * a hint, which a later one replaces. */
int pil_err_set(struct pil_err *err, int code, const char *fmt, ...) PIL_PRINTF(3, 4);

/* Stores the formatted message as it is, for failures that errno does not name. Returns -@code. */
int pil_err_say(struct pil_err *err, int code, const char *fmt, ...) PIL_PRINTF(3, 4);

/* Puts "prefix: " before a message that is there. Returns -err->code (or -EINVAL with NULL). */
int pil_err_prefix(struct pil_err *err, const char *fmt, ...) PIL_PRINTF(2, 3);

/* Stores the one line that tells the user how to mend it. */
void pil_err_hint(struct pil_err *err, const char *fmt, ...) PIL_PRINTF(2, 3);

#endif
