/* SPDX-License-Identifier: Apache-2.0
 *
 * state.h -- the folders pillion keeps its things in, after the XDG base directory rules.
 *
 *   data     distros/NAME/{rootfs,distro.json}, kits/NAME/{rootfs,stamp}, default
 *   runtime  broker.pid, broker.sock, machines/NAME/{token,agent.sock,pid,guest/broker.sock}
 *   cache    trees and packages that were fetched, models, the table of devices
 *   config   the file `config` */
#ifndef PIL_STATE_H
#define PIL_STATE_H

#include "base/compiler.h"
#include "base/err.h"

struct state_dirs { /* absolute paths, heap */
	char *data, *runtime, *cache, *config;
};

/* Finds the folders and makes those that are missing, 0700.  The runtime folder must be ours alone.
 */
int state_dirs_init(struct state_dirs *dirs, struct pil_err *err) PIL_MUST_CHECK;
void state_dirs_finish(struct state_dirs *dirs);

/* Takes an exclusive lock on @path (made if missing), waiting at most @timeout_ms.  Returns a
 * descriptor that holds it until closed, or -errno (-EWOULDBLOCK: somebody else has it). */
int state_lock(const char *path, int timeout_ms, struct pil_err *err) PIL_MUST_CHECK;

/* The same for long waits: says "Waiting: @why ..." once when it is not free at once. */
int state_lock_patiently(const char *path, const char *why, int timeout_ms,
			 struct pil_err *err) PIL_MUST_CHECK;

/* Heap path of a program of ours: beside this executable, in the build tree's sibling folder, or
 * installed.  @subdir is its folder below src/ in a build tree.  NULL: @err says where it was
 * looked for. */
char *state_find_program(const char *subdir, const char *name, struct pil_err *err);

#endif
