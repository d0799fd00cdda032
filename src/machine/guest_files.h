/* SPDX-License-Identifier: Apache-2.0
 *
 * guest_files.h -- what a machine gets of pillion, as files of the host. */
#ifndef PIL_GUEST_FILES_H
#define PIL_GUEST_FILES_H

#include <stdbool.h>

#include "agent/exposed.h"
#include "base/compiler.h"
#include "base/err.h"

struct own_addrs;

struct guest_files { /* heap, NULL where this build has none: guest_files_finish() */
	char *init, *plugins[EXPOSED_NUM];
};

/* Beside this program in the build tree, or installed.  -ENOENT without pillion-init. */
int guest_files_find(struct guest_files *files, struct pil_err *err) PIL_MUST_CHECK;
void guest_files_finish(struct guest_files *files);

/* The host's resolv.conf without servers on its loopback or at its @own addresses, which a machine
 * cannot reach; heap.
 * @forwarder: the server to name when none is left.  Sets *@forward when it is needed. */
char *guest_files_resolv_conf(const struct own_addrs *own, const char *forwarder, bool *forward);

#endif
