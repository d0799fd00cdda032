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

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"
#include "tree/recipe.h"

/* Makes @dir/rootfs from @recipe; one that is there is replaced when the new one is whole.  Talks
 * about its progress on standard error.  -EINTR when a signal asked the process to end.  Like all
 * of these, called with registry_lock() held. */
int tree_install(const struct state_dirs *dirs, const struct recipe *recipe, const char *dir,
		 struct pil_err *err) PIL_MUST_CHECK;

/* The same of the packages that tree_packages() has named (NULL: those of the archive that is
 * there, or the newest), which it notes in @dir/packages. */
int tree_install_of(const struct state_dirs *dirs, const struct recipe *recipe, const char *dir,
		    const char *packages, struct pil_err *err) PIL_MUST_CHECK;

/* What the mirror would make @recipe of now: a line "NAME VERSION" per package, sorted.  Takes some
 * seconds.  Heap; NULL with the reason in @err. */
char *tree_packages(const struct state_dirs *dirs, const struct recipe *recipe,
		    struct pil_err *err) PIL_MUST_CHECK;

/* The same out of what mmdebstrap says, which it changes.  For tests. */
char *tree_list_packages(char *log);

/* Is an archive of @recipe in the cache? */
bool tree_has_archive(const struct state_dirs *dirs, const struct recipe *recipe);

/* Removes @dir with all trees in it. */
int tree_remove(const char *dir, struct pil_err *err) PIL_MUST_CHECK;

/* Lets @part and @place, which may be missing, change places at once, so that there is always one
 * of the two at @place. */
int tree_swap(const char *part, const char *place, struct pil_err *err) PIL_MUST_CHECK;

/* What a distribution that was moved elsewhere was, in distros/. */
#define TREE_MOVING ".moving-"

/* Removes the folders of distributions that were never finished or not wholly removed. */
void tree_sweep(const struct state_dirs *dirs);

#endif
