/* SPDX-License-Identifier: Apache-2.0
 *
 * broker.h -- reaching the broker of this user, and starting it when nobody answers. */
#ifndef PIL_BROKER_H
#define PIL_BROKER_H

#include "compiler.h"
#include "err.h"
#include "state.h"
#include "wire.h"

/* Where the broker listens; heap. */
char *broker_socket_path(const struct state_dirs *dirs);

/* Makes sure that a broker answers, starting one if need be; waits at most 10 s. */
int broker_ensure(const struct state_dirs *dirs, struct pil_err *err) PIL_MUST_CHECK;

/* The devices machines are offered.  Needs a token of any kind: makes one for the time of the call.
 * Returns their number or -errno. */
int broker_devices(const struct state_dirs *dirs, struct wire_device *out, int max,
		   struct pil_err *err) PIL_MUST_CHECK;

/* Writes a new random token for machine @name to runtime/machines/@name/token (64 hex digits) and
 * into @hex (65 bytes). */
int broker_token_create(const struct state_dirs *dirs, const char *name, char *hex,
			struct pil_err *err) PIL_MUST_CHECK;

#endif
