/* SPDX-License-Identifier: Apache-2.0
 *
 * broker.h -- reaching the broker of this user, and starting it when nobody answers. */
#ifndef PIL_BROKER_H
#define PIL_BROKER_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"
#include "wire/wire.h"

/* Where the broker listens for processes of the host (host.h), and where the gate of machine @name
 * listens for its programs; heap. */
char *broker_socket_path(const struct state_dirs *dirs);
char *broker_gate_path(const struct state_dirs *dirs, const char *name);

/* A connection to the broker's own socket that never blocks; -errno when none listens. */
int broker_connect(const struct state_dirs *dirs) PIL_MUST_CHECK;

/* Starts a broker and does not wait: a process that ends with status 0 when one serves. */
pid_t broker_spawn(const struct state_dirs *dirs, struct pil_err *err) PIL_MUST_CHECK;

/* Kills the broker behind connection @fd, which has not answered for long enough.  False: it is not
 * the one that holds the lock, or is still starting, and was left alone. */
bool broker_end_hung(const struct state_dirs *dirs, int fd);

/* Makes sure that a broker answers, starting one if need be, in the place of one that is stuck;
 * waits at most 10 s. */
int broker_ensure(const struct state_dirs *dirs, struct pil_err *err) PIL_MUST_CHECK;

/* The devices machines are offered.  Returns their number or -errno. */
int broker_devices(const struct state_dirs *dirs, struct wire_device *out, int max,
		   struct pil_err *err) PIL_MUST_CHECK;

/* The cards of this host, as struct host_way (host.h).  Returns the number of ways or -errno. */
struct host_way;
int broker_ways(const struct state_dirs *dirs, struct host_way *out, int max,
		struct pil_err *err) PIL_MUST_CHECK;

/* Writes a new random token for machine @name to runtime/machines/@name/token (64 hex digits) and
 * into @hex (65 bytes). */
int broker_token_create(const struct state_dirs *dirs, const char *name, char *hex,
			struct pil_err *err) PIL_MUST_CHECK;

#endif
