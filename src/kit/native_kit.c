/* SPDX-License-Identifier: Apache-2.0
 *
 * The tree is made like a distribution's, and kept as the kit native-FLAVOR. */
#include "kit/native_kit.h"

#include <errno.h>

#include "base/fd.h"
#include "base/str.h"
#include "kit/kit.h"
#include "tree/recipe.h"

int native_kit_ensure(const struct state_dirs *dirs, const char *flavor, char **rootfs,
		      struct pil_err *err)
{
	const struct recipe *recipe = recipe_find(flavor);
	_auto_free char *dir = str_printf("%s/kits/native-%s", dirs->data, flavor);
	int ret;

	if (!recipe) {
		pil_err_hint(err, "pillion --list --online names those that can be had");
		return pil_err_say(err, ENOENT,
				   "make a tree to run programs of outside: there is no "
				   "distribution '%s' to be had",
				   flavor);
	}
	ret = kit_ensure(dirs, &(struct kit){.recipe = recipe, .dir = dir}, KIT_THERE, err);
	if (ret < 0)
		return ret;
	*rootfs = str_printf("%s/rootfs", dir);
	return 0;
}
