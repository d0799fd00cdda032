/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes what the tests of microVMs need on a host that cannot run them (tests/lib/outer.py):
 *
 *   vm_tool kernel SUITE                          the kernel kit of SUITE, in the data folder
 *   vm_tool runtime                               the runtime kit
 *   vm_tool native FLAVOR                         the kit that programs run natively from
 *   vm_tool disk FOLDER SUITE PACKAGES            FOLDER/disk.ext4, a Debian of these packages
 *   vm_tool distro NAME FLAVOR                    distros/NAME as a disk, registered
 *   vm_tool distro NAME bookworm                  the same of Debian 12, which no flavor is */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "config/registry.h"
#include "config/state.h"
#include "disk/image.h"
#include "kit/kernel.h"
#include "kit/native_kit.h"
#include "kit/runtime_kit.h"
#include "port/userns.h"
#include "tree/recipe.h"
#include "tree/tree.h"

#define DISK_BYTES ((uint64_t)64 << 30)

static const struct recipe bookworm = {.name = "bookworm",
				       .title = "Debian 12 (bookworm)",
				       .suite = "bookworm",
				       .packages =
					       "bash,ca-certificates,iproute2,procps,util-linux",
				       .slim = true,
				       .revision = 1};

static int make_disk(const struct state_dirs *dirs, const struct recipe *recipe, const char *dir,
		     struct pil_err *err)
{
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	int ret = tree_install(dirs, recipe, dir, err);

	if (!ret)
		ret = image_from_tree(dir, DISK_BYTES, err);
	return ret ? ret : userns_remove_tree(rootfs, err);
}

static int make_distro(const struct state_dirs *dirs, const char *name, const char *flavor,
		       struct pil_err *err)
{
	const struct recipe *recipe = strcmp(flavor, "bookworm") ? recipe_find(flavor) : &bookworm;
	_auto_free char *dir = str_printf("%s/distros/%s", dirs->data, name);
	struct distro distro = {.version = 2};
	int ret;

	if (!recipe)
		return pil_err_say(err, ENOENT, "no flavor '%s'", flavor);
	snprintf(distro.name, sizeof(distro.name), "%s", name);
	snprintf(distro.flavor, sizeof(distro.flavor), "%s", flavor);
	ret = make_disk(dirs, recipe, dir, err);
	return ret ? ret : registry_add(dirs, &distro, err);
}

static int run(const struct state_dirs *dirs, int argc, char **argv, struct pil_err *err)
{
	if (argc == 3 && !strcmp(argv[1], "kernel"))
		return kernel_kit_ensure(dirs, argv[2], KIT_THERE, err);
	if (argc == 2 && !strcmp(argv[1], "runtime"))
		return runtime_kit_ensure(dirs, KIT_THERE, err);
	if (argc == 3 && !strcmp(argv[1], "native")) {
		_auto_free char *rootfs = NULL;

		return native_kit_ensure(dirs, argv[2], &rootfs, err);
	}
	if (argc == 4 && !strcmp(argv[1], "distro"))
		return make_distro(dirs, argv[2], argv[3], err);
	if (argc == 5 && !strcmp(argv[1], "disk")) {
		struct recipe r = {.name = "vm-test",
				   .title = "a Debian to test in",
				   .suite = argv[3],
				   .packages = argv[4],
				   .slim = true,
				   .revision = 1};

		return make_disk(dirs, &r, argv[2], err);
	}
	return pil_err_say(err, EINVAL, "see the source for what this takes");
}

int main(int argc, char **argv)
{
	struct pil_err err = {0};
	struct state_dirs dirs;
	int ret;

	log_init("vm_tool");
	ret = state_dirs_init(&dirs, &err);
	if (!ret) {
		_auto_fd int lock_fd = registry_lock(&dirs, &err);

		ret = lock_fd < 0 ? lock_fd : run(&dirs, argc, argv, &err);
	}
	if (ret < 0)
		fprintf(stderr, "vm_tool: %s\n%s\n", err.msg, err.hint);
	return ret < 0 ? 1 : 0;
}
