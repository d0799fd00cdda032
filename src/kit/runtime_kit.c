/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the kit is made by one of recipes_runtime[], of which the first is the one
 * wanted.  It names no version, because Debian's mirrors keep only the newest; so a ggml may come
 * with it that this pillion does not know, and with which no machine would have a device.  That is
 * found by the names of the files in the tree as soon as it is unpacked: running an executor takes
 * a broker and its jail, and would tell no more.  Such a tree is refused before it takes the place
 * of the kit, and the next recipe gets its turn.
 *
 * A kit with a known ggml is renewed by the recipe it is of; others begin with the first.  When
 * every recipe is refused the kit that is there stays, or else the last that could be had becomes
 * the kit, as all but devices works with it; people are told. */
#include "kit/runtime_kit.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/ggml/versions.h"
#include "base/fd.h"
#include "base/str.h"
#include "tree/recipe.h"

enum { UNKNOWN_GGML = ELIBBAD }; /* an errno that nothing else here returns */

bool runtime_kit_ggml_version(const char *rootfs, char *out)
{
	_auto_free char *pattern = str_printf("%s/usr/lib/*/libggml-base.so.*.*.*", rootfs);
	bool found = false;
	glob_t g;

	if (glob(pattern, 0, NULL, &g))
		return false;
	for (size_t i = 0; i < g.gl_pathc && !found; i++) {
		const char *version = strstr(strrchr(g.gl_pathv[i], '/'), ".so.") + 4;

		found = strspn(version, "0123456789.") == strlen(version) &&
			strlen(version) < RUNTIME_KIT_VERSION_BYTES;
		if (found)
			strcpy(out, version);
	}
	globfree(&g);
	return found;
}

bool runtime_kit_ggml_known(const char *version)
{
	char *end;
	unsigned long minor;

	if (strncmp(version, "0.", 2) != 0)
		return false;
	minor = strtoul(version + 2, &end, 10);
	return end > version + 2 && minor >= GGML_OLDEST_MINOR && minor <= GGML_NEWEST_MINOR;
}

static bool has_unknown_ggml(const char *rootfs, char *version)
{
	return runtime_kit_ggml_version(rootfs, version) && !runtime_kit_ggml_known(version);
}

static char *kit_folder(const struct state_dirs *dirs)
{
	return str_printf("%s/kits/%s", dirs->data, recipes_runtime->name);
}

/* kit::finish; -UNKNOWN_GGML if that is why. */
static int refuse_unknown_ggml(const char *dir, struct pil_err *err)
{
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	char version[RUNTIME_KIT_VERSION_BYTES];

	if (!has_unknown_ggml(rootfs, version))
		return 0;
	return pil_err_say(err, UNKNOWN_GGML,
			   "ggml %s, and this pillion knows " GGML_KNOWN_VERSIONS, version);
}

static const struct recipe *recipe_in_use(const char *dir)
{
	for (const struct recipe *r = recipes_runtime; r->name; r++)
		if (kit_is_whole(&(struct kit){.recipe = r, .dir = dir}))
			return r;
	return NULL;
}

static int try_recipe(const struct state_dirs *dirs, const char *dir, const struct recipe *recipe,
		      enum kit_wish wish, struct pil_err *err)
{
	const struct kit kit = {.recipe = recipe, .dir = dir, .finish = refuse_unknown_ggml};
	int done = kit_ensure(dirs, &kit, wish, err);
	int ret = done == KIT_KEPT ? refuse_unknown_ggml(dir, err) : 0;

	return ret ? ret : done;
}

/* Tries @recipe and those after it.  When all are refused, -UNKNOWN_GGML, and the last that could
 * be had is in @last. */
static int try_recipes(const struct state_dirs *dirs, const char *dir, const struct recipe *recipe,
		       enum kit_wish wish, const struct recipe **last, struct pil_err *err)
{
	for (*last = NULL; recipe->name; *last = recipe++) {
		struct pil_err why = {0};
		int ret = try_recipe(dirs, dir, recipe, wish, &why);

		if (ret >= 0 || ret == -EINTR || (ret != -UNKNOWN_GGML && !*last)) {
			*err = why;
			return ret;
		}
		if (ret != -UNKNOWN_GGML) {
			fprintf(stderr, "%s\n", why.msg);
			break; /* what there is will do for all but devices */
		}
		if (recipe[1].name)
			fprintf(stderr, "Debian %s has %s: trying the %s.\n", recipe->suite,
				why.msg, recipe[1].title);
		else
			fprintf(stderr, "Debian %s has %s.\n", recipe->suite, why.msg);
	}
	return -UNKNOWN_GGML;
}

int runtime_kit_ensure(const struct state_dirs *dirs, enum kit_wish wish, struct pil_err *err)
{
	_auto_free char *dir = kit_folder(dirs);
	const struct recipe *in_use = recipe_in_use(dir);
	bool known = in_use && refuse_unknown_ggml(dir, NULL) == 0;
	const struct recipe *last;
	int ret;

	if (in_use && wish == KIT_THERE)
		return KIT_KEPT;
	ret = try_recipes(dirs, dir, known ? in_use : recipes_runtime, wish, &last, err);
	if (ret != -UNKNOWN_GGML)
		return ret;
	if (in_use)
		return KIT_HELD;
	return kit_ensure(dirs, &(struct kit){.recipe = last, .dir = dir}, KIT_THERE, err);
}

char *runtime_kit_packaged(const struct state_dirs *dirs)
{
	_auto_free char *dir = kit_folder(dirs);

	return kit_packaged(&(struct kit){.recipe = recipes_runtime, .dir = dir});
}

void runtime_kit_warn(const struct state_dirs *dirs, const char *ggml_dir, const char *distro)
{
	_auto_free char *dir = kit_folder(dirs);
	_auto_free char *kit = str_printf("%s/rootfs", dir);
	_auto_free char *tree =
		str_printf("%s/distros/%s/rootfs", dirs->data, distro ? distro : "");
	char version[RUNTIME_KIT_VERSION_BYTES];

	if (!ggml_dir && has_unknown_ggml(kit, version))
		fprintf(stderr,
			"pillion: the runtime kit has ggml %s, and this pillion "
			"knows " GGML_KNOWN_VERSIONS ": machines will have no device\n"
			"hint: install a newer pillion, or set ggml_dir in the [accel] section to "
			"a folder with a ggml that this one knows\n",
			version);
	if (distro && has_unknown_ggml(tree, version))
		fprintf(stderr,
			"pillion: '%s' has ggml %s, and this pillion knows " GGML_KNOWN_VERSIONS
			": its programs will find no device\n"
			"hint: install a newer pillion, or run a llama.cpp or Ollama with a ggml "
			"that this one knows\n",
			distro, version);
}
