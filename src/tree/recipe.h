/* SPDX-License-Identifier: Apache-2.0
 *
 * recipe.h -- what distributions and kits are made of. */
#ifndef PIL_RECIPE_H
#define PIL_RECIPE_H

#include <stdbool.h>

struct recipe {
	const char *name;     /* of the flavor, or of the kit */
	const char *title;    /* for people */
	const char *suite;    /* of Debian */
	const char *more;     /* a second suite, for packages that the first lacks; may be NULL */
	const char *packages; /* comma-separated */
	bool slim;            /* leave out manuals, translations, documentation */
	const char
		*extract; /* packages are only unpacked, then this runs in sh with the tree as $1 */
	unsigned revision; /* count up when the same text should give a new tree */
};

extern const struct recipe recipes_distro[];  /* ended by name NULL; the first is the default */
extern const struct recipe recipes_runtime[]; /* the first whose ggml is known */
extern const struct recipe recipes_kernel[];  /* one per suite; the first is the default */

const struct recipe *recipe_find(const char *name); /* of a distro; NULL: none */

/* Eight hex digits that change with the recipe; @out holds 9. */
void recipe_key(const struct recipe *recipe, char *out);

#endif
