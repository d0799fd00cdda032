/* SPDX-License-Identifier: Apache-2.0
 *
 * kit.h -- kits: trees that the host side needs, in kits/NAME of the data folder.
 *
 * Called with registry_lock() held, where not said otherwise. */
#ifndef PIL_KIT_H
#define PIL_KIT_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"
#include "tree/recipe.h"

enum kit_wish {
	KIT_THERE,  /* any that is made by its recipe */
	KIT_NEWEST, /* of the packages that the mirror has now */
};

enum kit_done {
	KIT_KEPT,
	KIT_MADE,
	KIT_RENEWED,
	KIT_HELD, /* a newer one could be had, but not used */
	KIT_NUM_DONE,
};

struct kit {
	const struct recipe *recipe;
	const char *dir; /* borrowed */
	/* Makes what else belongs into the kit, in @dir with the tree, or refuses it (-errno); may
	 * be NULL. */
	int (*finish)(const char *dir, struct pil_err *err);
};

/* Sees to it that @kit is there as wished.  A new one is made beside the old one and takes its
 * place at once; what still runs from the old one keeps the files it has open.  Returns enum
 * kit_done, or -errno with the old one as it was. */
int kit_ensure(const struct state_dirs *dirs, const struct kit *kit, enum kit_wish wish,
	       struct pil_err *err) PIL_MUST_CHECK;

/* What stands behind the name of a kit's folder where the one before it is kept. */
#define KIT_LAST ".last"

/* Lets all kits change places with those before them.  Returns how many, or -errno. */
int kit_roll_back(const struct state_dirs *dirs, struct pil_err *err) PIL_MUST_CHECK;

/* Is there a kit in @kit->dir, made by @kit->recipe?  No lock is needed. */
bool kit_is_whole(const struct kit *kit);

/* "NAME VERSION" of the package that @kit is for; heap, NULL: unknown.  No lock is needed. */
char *kit_packaged(const struct kit *kit);

#endif
