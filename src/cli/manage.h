/* SPDX-License-Identifier: Apache-2.0
 *
 * manage.h -- what --manage changes of a distribution itself: its place, disk and default user. */
#ifndef PIL_MANAGE_H
#define PIL_MANAGE_H

#include "base/compiler.h"
#include "base/err.h"
#include "cli/cmd_options.h"

struct cli;

/* Does what option @id (OPT_MANAGE_...) with @argument asks for. */
int manage_change(struct cli *cli, const char *name, enum option_id id, const char *argument,
		  struct pil_err *err) PIL_MUST_CHECK;

#endif
