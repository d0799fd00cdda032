/* SPDX-License-Identifier: Apache-2.0
 *
 * shares.h -- which folders of the host a machine may see. */
#ifndef PIL_SHARES_H
#define PIL_SHARES_H

#include "base/compiler.h"
#include "base/err.h"

struct config;
struct state_dirs;

/* Refuses, with a hint, a folder by which programs of a machine come to act for the user outside:
 * one that holds his home, sockets of his session, or what pillion keeps and runs, or that lies in
 * one they write to.  @index is of @config's shares.  0 or -EPERM;
 * `:unsafe` in the config lets it be, with a warning.  -errno where there is no such folder. */
int shares_check(const struct config *config, int index, const struct state_dirs *dirs,
		 struct pil_err *err) PIL_MUST_CHECK;

/* Refuses, with a hint, a @folder that a sandbox sees as it is, with sockets or FIFOs in it.  Where
 * it holds more than can be looked at, that is logged.  0 or -EPERM. */
int shares_refuse_sockets(const char *folder, struct pil_err *err) PIL_MUST_CHECK;

/* Logs the sockets and FIFOs that a sandbox finds in @folder, as far as a short look sees them. */
void shares_warn_of_sockets(const char *folder);

#endif
