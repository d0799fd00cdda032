/* SPDX-License-Identifier: Apache-2.0
 *
 * proc_output.h -- running a program for what it prints. */
#ifndef PIL_PROC_OUTPUT_H
#define PIL_PROC_OUTPUT_H

#include "base/compiler.h"
#include "base/err.h"

enum { PROC_OUTPUT_MAX = 1 << 20 };

/* Runs @argv for @timeout_ms at most, and stores in *@out what it printed, at most PROC_OUTPUT_MAX
 * bytes (heap, terminated; not NULL after success).  Its exit status, or -errno. */
int proc_output(char *const *argv, int timeout_ms, char **out, struct pil_err *err) PIL_MUST_CHECK;

#endif
