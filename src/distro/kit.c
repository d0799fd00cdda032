/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the kit is kits/runtime: the tree of one of recipes_runtime[], and that
 * recipe's key (stamp, written last).  The first recipe is the one wanted.  It names no version,
 * because Debian's mirrors keep only the newest; so a ggml may come with it that this pillion does
 * not know, and with which no machine would have a device.  That is found by the names of the
 * files in the tree as soon as it is unpacked: running an executor takes a broker and its jail,
 * and would tell no more.  Then the next recipe gets its turn.  When none is better the
 * last one that could be had stays, as all but devices works with it, and people are told. */
#include "kit.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "ggml_versions.h"
#include "path.h"
#include "recipe.h"
#include "str.h"
#include "tree.h"

bool kit_ggml_version(const char *rootfs, char *out)
{
	_auto_free char *pattern = str_printf("%s/usr/lib/*/libggml-base.so.*.*.*", rootfs);
	bool found = false;
	glob_t g;

	if (glob(pattern, 0, NULL, &g))
		return false;
	for (size_t i = 0; i < g.gl_pathc && !found; i++) {
		const char *version = strstr(strrchr(g.gl_pathv[i], '/'), ".so.") + 4;

		found = strspn(version, "0123456789.") == strlen(version) &&
			strlen(version) < KIT_VERSION_BYTES;
		if (found)
			strcpy(out, version);
	}
	globfree(&g);
	return found;
}

bool kit_ggml_known(const char *version)
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
	return kit_ggml_version(rootfs, version) && !kit_ggml_known(version);
}

static bool is_current(const char *rootfs, const char *stamp)
{
	_auto_free char *old = NULL;
	char key[9];

	if (pil_read_file(stamp, 64, &old) <= 0 || !path_exists(rootfs))
		return false;
	for (const struct recipe *r = recipes_runtime; r->name; r++) {
		recipe_key(r, key);
		if (!strcmp(old, key))
			return true;
	}
	return false;
}

/* Installs the kit by the first recipe whose ggml is known, or else by the last that can be had;
 * stores which in @made. */
static int install_known(const struct state_dirs *dirs, const char *dir, const char *rootfs,
			 const struct recipe **made, struct pil_err *err)
{
	const struct recipe *recipe = recipes_runtime;
	char version[KIT_VERSION_BYTES];
	int ret = tree_install(dirs, recipe, dir, err);

	for (; !ret && recipe[1].name && has_unknown_ggml(rootfs, version); recipe++) {
		struct pil_err why = {0};

		fprintf(stderr,
			"Debian %s has ggml %s, and this pillion knows " GGML_KNOWN_VERSIONS
			": trying the %s.\n",
			recipe->suite, version, recipe[1].title);
		ret = tree_install(dirs, &recipe[1], dir, &why);
		if (ret && ret != -EINTR) {
			fprintf(stderr, "%s\n", why.msg);
			ret = 0;
			break; /* what there is will do for all but devices */
		}
		*err = why;
	}
	*made = recipe;
	return ret;
}

int kit_ensure(const struct state_dirs *dirs, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/kits/%s", dirs->data, recipes_runtime->name);
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_free char *stamp = str_printf("%s/stamp", dir);
	const struct recipe *made;
	char key[9];
	int ret;

	if (is_current(rootfs, stamp))
		return 0;
	ret = install_known(dirs, dir, rootfs, &made, err);
	if (ret)
		return ret;
	recipe_key(made, key);
	if ((ret = pil_write_file(stamp, 0600, key, strlen(key))))
		return pil_err_set(err, -ret, "write '%s'", stamp);
	return 1;
}

void kit_warn_of_ggml(const struct state_dirs *dirs, const char *ggml_dir, const char *distro)
{
	_auto_free char *kit = str_printf("%s/kits/%s/rootfs", dirs->data, recipes_runtime->name);
	_auto_free char *tree =
		str_printf("%s/distros/%s/rootfs", dirs->data, distro ? distro : "");
	char version[KIT_VERSION_BYTES];

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
