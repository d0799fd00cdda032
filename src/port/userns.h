/* SPDX-License-Identifier: Apache-2.0
 *
 * userns.h -- running something in the user namespace that owns the distro trees.
 *
 * Inside it, uids 0..65535 exist; outside they are a range that belongs to nobody else: written
 * straight to uid_map when we are root, through newuidmap/newgidmap and /etc/subuid when not.
 * Files of a distro tree are owned by that range, so they are made, changed and removed in here. */
#ifndef PIL_USERNS_H
#define PIL_USERNS_H

#include <sys/types.h>

#include "compiler.h"
#include "err.h"
#include "proc.h"

/* Starts @argv as uid 0 of the namespace (also gid 0, all capabilities in it), otherwise as
 * proc_spawn() does.  -errno with a hint where the host lacks newuidmap or a subuid range. */
pid_t userns_spawn(char *const *argv, const struct proc_opts *opts,
		   struct pil_err *err) PIL_MUST_CHECK;

#endif
