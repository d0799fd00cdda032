/* SPDX-License-Identifier: Apache-2.0
 *
 * ending.h -- why a machine has ended, from its supervisor and monitor to whoever asks later: the
 * file runtime/machines/NAME.end, which nothing in the machine can write to. */
#ifndef PIL_ENDING_H
#define PIL_ENDING_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

struct state_dirs;

/* For the supervisor: the file, empty, as a report.h descriptor; -errno. */
int ending_open(const struct state_dirs *dirs, const char *name,
		struct pil_err *err) PIL_MUST_CHECK;

/* Puts into @err, which says that the machine has ended, why: in its place where the machine @ran,
 * else behind it. */
void ending_explain(const struct state_dirs *dirs, const char *name, bool ran, struct pil_err *err);

#endif
