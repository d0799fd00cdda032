/* SPDX-License-Identifier: Apache-2.0
 *
 * str.h -- the few string helpers libc lacks. */
#ifndef PIL_STR_H
#define PIL_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* Heap string as by printf(); aborts only when memory for it cannot be had. */
char *str_printf(const char *fmt, ...) PIL_PRINTF(1, 2) PIL_MUST_CHECK;

/* Copies @in for a log or a terminal: what is not printable becomes \xNN; always terminated. */
const char *str_escape(char *out, size_t out_size, const char *in);

/* The same, but only control characters are changed: for text that may be in any language. */
const char *str_escape_controls(char *out, size_t out_size, const char *in);

/* In place: each byte of a control character becomes '?'.  For names that come from a peer. */
void str_blank_controls(char *text);

/* Whole decimal number, no sign, no blanks, <= @max. */
bool str_to_u64(const char *text, uint64_t max, uint64_t *out);

/* "512M", "8GB", "1T", plain bytes: binary multiples as in .wslconfig. */
bool str_to_bytes(const char *text, uint64_t *out);

/* "1.4 GiB" into @out. */
const char *str_bytes(char *out, size_t out_size, uint64_t bytes);

enum { STR_MAX_NAME = 64 };

/* 1 to STR_MAX_NAME of [A-Za-z0-9._-], first a letter or digit: what a distro or machine may be
 * called. */
bool str_is_name(const char *text);

#endif
