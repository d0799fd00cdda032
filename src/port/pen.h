/* SPDX-License-Identifier: Apache-2.0
 *
 * pen.h -- the jail of a program that works on what a guest wrote: bubblewrap, which
 * userns_spawn() starts in the user namespace that owns the trees, with USERNS_OWN_PIDS.
 *
 * In it there are the host's /usr, which nobody can write to, and what the caller binds: no home,
 * no configuration, no network, no process but its own, and none of the namespace's capabilities
 * but those it is given. */
#ifndef PIL_PEN_H
#define PIL_PEN_H

#include <stdint.h>

struct argv;

/* The most that a program in a pen may allocate (struct proc_opts): a few times what a disk of 1
 * TiB full of files takes. */
#define PEN_MAX_BYTES (UINT64_C(2) << 30)

/* Begins the command line @a.  @caps (NULL-terminated) is what the program keeps.  The caller adds
 * what is to be bound, "--", and the program. */
void pen_begin(struct argv *a, const char *const *caps);

/* What it takes to act on files of all of the namespace's users. */
extern const char *const pen_file_caps[];
extern const char *const pen_copy_caps[]; /* and to make the nodes that a namespace may make */

#endif
