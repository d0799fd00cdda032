/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch.h -- files from the network, by curl(1): a transfer that breaks off is gone on with, at
 * once and by the next command, and a file counts only with the SHA-256 that was promised. */
#ifndef PIL_FETCH_H
#define PIL_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct fetch {
	const char *url;    /* http, https or file */
	const char *title;  /* for people */
	const char *sha256; /* 64 hex digits in lower case; NULL: not known */
	uint64_t max_bytes;
};

/* Makes the file @path, which is ours alone, unless it is there and right.  Says on standard error
 * what it fetches, and on a terminal how far it is. */
int fetch_file(const struct fetch *f, const char *path, struct pil_err *err) PIL_MUST_CHECK;

/* What to say for curl's exit @status, and whether it is worth another try. */
const char *fetch_explain(int status, int http_code, bool *again);

/* The SHA-256 of file @path in 64 hex digits; heap, NULL with the reason in @err. */
char *fetch_hash(const char *path, struct pil_err *err) PIL_MUST_CHECK;

#endif
