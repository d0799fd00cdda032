/* SPDX-License-Identifier: Apache-2.0
 *
 * tree.h -- making the trees of distributions and kits, and removing them.
 *
 * A tree is built once as an archive in the cache (mmdebstrap, from the host's own Debian mirror)
 * and unpacked in the user namespace that owns it.  Every step writes beside its goal and renames,
 * so that being killed at any moment leaves nothing that counts as done; the next call cleans up.
 */
#ifndef PIL_TREE_H
#define PIL_TREE_H

#include "compiler.h"
#include "err.h"
#include "recipe.h"
#include "state.h"

/* Makes @dir/rootfs from @recipe; one that is there is replaced when the new one is whole.  Talks
 * about its progress on standard error.  -EINTR when a signal asked the process to end.  Like all
 * of these, called with registry_lock() held. */
int tree_install(const struct state_dirs *dirs, const struct recipe *recipe, const char *dir,
		 struct pil_err *err) PIL_MUST_CHECK;

/* Removes @dir with all trees in it. */
int tree_remove(const char *dir, struct pil_err *err) PIL_MUST_CHECK;

/* Removes the folders of distributions that were never finished or not wholly removed. */
void tree_sweep(const struct state_dirs *dirs);

#endif
