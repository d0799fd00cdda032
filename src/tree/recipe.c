/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of distributions and kits, and a key for each: a recipe that has changed has another
 * key, so the tree that was cached for it is made again. */
#include "tree/recipe.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define EVERYDAY "bash,ca-certificates,iproute2,less,login,procps,sudo,util-linux"
#define RUNTIME  "libggml0,libggml0-backend-vulkan,mesa-vulkan-drivers"

const struct recipe recipes_distro[] = {
	{.name = "debian",
	 .title = "Debian sid with llama.cpp",
	 .suite = "sid",
	 .packages = EVERYDAY ",llama.cpp",
	 .revision = 1},
	{.name = "debian-stable",
	 .title = "Debian 13 (trixie)",
	 .suite = "trixie",
	 .packages = EVERYDAY,
	 .revision = 1},
	{0},
};

/* The first is of the same suite as the default distribution, so that a program natively and in a
 * machine computes with the same ggml. */
const struct recipe recipes_runtime[] = {
	{.name = "runtime",
	 .title = "runtime kit (ggml, Vulkan drivers)",
	 .suite = "sid",
	 .packages = RUNTIME,
	 .slim = true,
	 .revision = 1},
	{.name = "runtime",
	 .title = "runtime kit of Debian 13 with backports",
	 .suite = "trixie",
	 .more = "trixie-backports",
	 .packages = RUNTIME,
	 .slim = true,
	 .revision = 1},
	{0},
};

/* Leaves kit/vmlinuz and kit/modules/VERSION, wherever the package has them.  What it removes it
 * names: mmdebstrap keeps its apt's configuration in the tree's /tmp, and without that its apt
 * would work on the host. */
#define KEEP_KERNEL                                                                                \
	"set -e; cd \"$1\"; mkdir -p kit/modules; "                                                \
	"for v in lib/modules/*/kernel usr/lib/modules/*/kernel; do "                              \
	"[ ! -d \"$v\" ] || mv \"${v%/kernel}\" kit/modules/; done; "                              \
	"for v in boot/vmlinuz-* kit/modules/*/vmlinuz; do "                                       \
	"[ ! -f \"$v\" ] || mv \"$v\" kit/vmlinuz; done; chmod 644 kit/vmlinuz; "                  \
	"rm -rf ./bin ./boot ./lib ./lib64 ./sbin ./usr"

#define KERNEL(of_suite)                                                                           \
	{                                                                                          \
		.name = "kernel", .title = "guest kernel of Debian " of_suite, .suite = of_suite,  \
		.packages = "linux-image-cloud-amd64", .extract = KEEP_KERNEL, .revision = 2       \
	}

const struct recipe recipes_kernel[] = {KERNEL("trixie"), KERNEL("bookworm"), KERNEL("sid"), {0}};

const struct recipe *recipe_find(const char *name)
{
	for (const struct recipe *r = recipes_distro; r->name; r++)
		if (!strcasecmp(r->name, name))
			return r;
	return NULL;
}

void recipe_key(const struct recipe *recipe, char *out)
{
	const char *parts[] = {recipe->name,     recipe->suite,
			       recipe->packages, recipe->slim ? "slim" : "full",
			       recipe->extract,  recipe->more};
	uint32_t hash = 2166136261u ^
			recipe->revision; /* FNV-1a: a cache key, nobody gains by a collision */

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		for (const char *p = parts[i]; p; p++) {
			hash = (hash ^ (uint8_t)*p) * 16777619u;
			if (!*p)
				break;
		}
	snprintf(out, 9, "%08x", hash);
}
