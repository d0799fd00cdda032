/* SPDX-License-Identifier: Apache-2.0
 *
 * path.h -- making and removing directories. */
#ifndef PIL_PATH_H
#define PIL_PATH_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"

/* mkdir -p; what is already there is left as it is.  0 or -errno. */
int path_mkdirs(const char *path, mode_t mode) PIL_MUST_CHECK;

/* rm -rf that neither follows links nor crosses into another mount; missing is fine.  0 or -errno.
 */
int path_remove_tree(const char *path) PIL_MUST_CHECK;

/* Removes in the same way all that is in folder @path, itself no link. */
int path_empty_folder(const char *path) PIL_MUST_CHECK;

bool path_exists(const char *path);

/* -ELOOP: a component of @below, as seen from folder @root, is a symbolic link.  0: none is, up to
 * the first that does not exist.  Else -errno. */
int path_refuse_links(const char *root, const char *below) PIL_MUST_CHECK;

/* Is it a folder with something in it? */
bool path_has_entries(const char *path);

/* The folder this executable lies in, without a final slash; heap. NULL when /proc is missing. */
char *path_of_self(void);

#endif
