/* SPDX-License-Identifier: Apache-2.0
 *
 * devices.h -- which devices there are, as the APIs' libraries in the jail see them. */
#ifndef PIL_DEVICES_H
#define PIL_DEVICES_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "broker/jail.h"
#include "config/state.h"
#include "wire/wire.h"

/* Fills @out (WIRE_MAX_DEVICES) with what the libraries in the jail list, its own index in each
 * record: from cache/devices.json while nothing it depends on has changed, else by asking, at most
 * 30 s. Returns their number or -errno. */
int devices_find(const struct state_dirs *dirs, const struct jail *jail, struct wire_device *out,
		 struct pil_err *err) PIL_MUST_CHECK;

/* Drops the reference device from the @n records where something else is there, unless @reference
 * is wanted in any case; else it comes last.  Returns how many are left. */
int devices_select(struct wire_device *devices, int n, bool reference);

/* The cache's text (heap; NULL: a name is not UTF-8) and back.  devices_parse() returns their
 * number, or -EINVAL when the text is not a table made for @key. */
char *devices_format(const char *key, const struct wire_device *devices, int n);
int devices_parse(const char *text, const char *key, struct wire_device *out);

#endif
