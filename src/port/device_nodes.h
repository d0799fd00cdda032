/* SPDX-License-Identifier: Apache-2.0
 *
 * device_nodes.h -- the device nodes of GPUs and NPUs, in one list.  Three readers use it: the jail
 * binds them, the executor joins their groups, and the broker asks for devices again when they
 * change.
 *
 * @root is "" for the host; tests give a folder. */
#ifndef PIL_DEVICE_NODES_H
#define PIL_DEVICE_NODES_H

#include <glob.h>
#include <sys/types.h>

/* What a jail binds: nodes, and folders of nodes.  @out is filled; release it with globfree(). */
void device_nodes_top(const char *root, glob_t *out);

/* The same and, of each folder, what is in it. */
void device_nodes_all(const char *root, glob_t *out);

/* The groups that the nodes belong to, each once and without root's, into @groups.  Returns how
 * many; at most @max. */
int device_nodes_groups(const char *root, gid_t *groups, int max);

#endif
