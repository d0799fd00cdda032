/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a kit (kit.c) is kits/kernel-SUITE: the tree of its recipe
 * (rootfs/kit/vmlinuz and rootfs/kit/modules/VERSION), the kernel extracted from it (vmlinux), and
 * the initramfs with a line that names all that went into it (initramfs.inputs).  The initramfs
 * depends on pillion's own files, so it is looked after at each start of a machine; two starts at
 * once write the same, each beside the other, and rename.
 *
 * A kernel named by path is extracted into the cache if it is compressed, under a name made of its
 * inode, size and time. */
#include "kit/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "kit/kernel_image.h"
#include "tree/recipe.h"

enum { MAX_VMLINUZ_BYTES = 256 << 20, HOLE_BYTES = 64 << 10 };

void kernel_finish(struct kernel *kernel)
{
	free(kernel->vmlinux);
	free(kernel->initramfs);
	free(kernel->mismatch);
	*kernel = (struct kernel){0};
}

static char *kit_folder(const struct state_dirs *dirs, const struct recipe *recipe)
{
	return str_printf("%s/kits/%s-%s", dirs->data, recipe->name, recipe->suite);
}

static const struct recipe *kit_recipe(const char *suite)
{
	for (const struct recipe *r = recipes_kernel; r->name; r++)
		if (!suite || !strcmp(r->suite, suite))
			return r;
	return NULL;
}

static int unknown_suite(const char *suite, struct pil_err *err)
{
	pil_err_hint(err, "kernel = trixie, bookworm, sid, or the path of a kernel, in the config");
	return pil_err_say(err, ENOENT, "there is no kernel kit '%s'", suite);
}

/* Makes holes of the file's zeroes: a third of a kernel, which pillion-vmm need not copy.  A file
 * system that cannot may keep them. */
static void dig_holes(const char *path, const uint8_t *bytes, size_t len)
{
	static const uint8_t zeroes[HOLE_BYTES];
	_auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	for (size_t at = 0; len - at >= HOLE_BYTES; at += HOLE_BYTES)
		if (!memcmp(bytes + at, zeroes, HOLE_BYTES) &&
		    fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at,
			      HOLE_BYTES))
			return;
}

/* Writes the ELF kernel in @from to @to, at once. */
static int extract(const char *from, const char *to, struct pil_err *err)
{
	_auto_free char *image = NULL;
	_auto_free uint8_t *elf = NULL;
	size_t elf_bytes = 0;
	ssize_t bytes = pil_read_file(from, MAX_VMLINUZ_BYTES, &image);
	int ret;

	if (bytes < 0)
		return pil_err_set(err, (int)-bytes, "read kernel '%s'", from);
	ret = kernel_image_extract((uint8_t *)image, (size_t)bytes, &elf, &elf_bytes, err);
	if (ret)
		return pil_err_prefix(err, "kernel '%s'", from);
	ret = pil_write_file(to, 0644, elf, elf_bytes);
	if (ret)
		return pil_err_set(err, -ret, "write '%s'", to);
	dig_holes(to, elf, elf_bytes);
	return 0;
}

static int finish_kit(const char *dir, struct pil_err *err)
{
	_auto_free char *vmlinuz = str_printf("%s/rootfs/kit/vmlinuz", dir);
	_auto_free char *vmlinux = str_printf("%s/vmlinux", dir);

	return extract(vmlinuz, vmlinux, err);
}

int kernel_kit_ensure(const struct state_dirs *dirs, const char *suite, enum kit_wish wish,
		      struct pil_err *err)
{
	const struct recipe *recipe = kit_recipe(suite);
	_auto_free char *dir = NULL;

	if (!recipe)
		return unknown_suite(suite, err);
	dir = kit_folder(dirs, recipe);
	return kit_ensure(dirs, &(struct kit){.recipe = recipe, .dir = dir, .finish = finish_kit},
			  wish, err);
}

char *kernel_kit_packaged(const struct state_dirs *dirs, const char *suite)
{
	const struct recipe *recipe = kit_recipe(suite);
	_auto_free char *dir = recipe ? kit_folder(dirs, recipe) : NULL;

	return dir ? kit_packaged(&(struct kit){.recipe = recipe, .dir = dir}) : NULL;
}

/* ---- at each start ---- */

/* The one folder of modules in a kit; heap, NULL: the kit is damaged. */
static char *modules_folder(const char *dir)
{
	_auto_free char *pattern = str_printf("%s/rootfs/kit/modules/*", dir);
	char *found = NULL;
	glob_t g;

	if (glob(pattern, GLOB_NOSORT, NULL, &g))
		return NULL;
	if (g.gl_pathc == 1)
		found = strdup(g.gl_pathv[0]);
	globfree(&g);
	return found;
}

/* What the initramfs is made of, as text. */
static char *inputs(const char *modules, const struct initramfs_file *files)
{
	char *text = str_printf("%s\n", modules);

	for (; files->to; files++) {
		struct stat st = {0};
		char *more;

		if (files->from && stat(files->from, &st))
			st = (struct stat){0};
		more = str_printf("%s%s %s %lld %lld %lld.%ld\n", text, files->to,
				  files->from ? files->from : "-", (long long)st.st_ino,
				  (long long)st.st_size, (long long)st.st_mtim.tv_sec,
				  st.st_mtim.tv_nsec);
		free(text);
		text = more;
	}
	return text;
}

static int prepare_initramfs(const char *dir, const struct initramfs_file *files, char **out,
			     struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/initramfs", dir);
	_auto_free char *inputs_path = str_printf("%s/initramfs.inputs", dir);
	_auto_free char *modules = modules_folder(dir);
	_auto_free char *old = NULL;
	_auto_free char *now = NULL;
	int ret = 0;

	if (!modules)
		return pil_err_say(err, ENOENT, "kernel kit '%s' has no modules", dir);
	now = inputs(modules, files);
	if (pil_read_file(inputs_path, 1 << 16, &old) <= 0 || strcmp(old, now) != 0 ||
	    !path_exists(path)) {
		ret = initramfs_write(path, modules, files, err);
		if (!ret && (ret = pil_write_file(inputs_path, 0644, now, strlen(now))))
			pil_err_set(err, -ret, "write '%s'", inputs_path);
	}
	if (!ret)
		*out = pil_take_ptr(&path);
	return ret;
}

static int prepare_own(const struct state_dirs *dirs, const char *path, char **out,
		       struct pil_err *err)
{
	_auto_free char *folder = str_printf("%s/kernels", dirs->cache);
	_auto_free char *cached = NULL;
	struct stat st;
	int ret = path_mkdirs(folder, 0755);

	if (ret)
		return pil_err_set(err, -ret, "make folder '%s'", folder);
	pil_err_hint(err, "kernel = in the config names it");
	if (stat(path, &st))
		return pil_err_set(err, errno, "open kernel '%s'", path);
	cached = str_printf("%s/%llx-%llx-%llx", folder, (unsigned long long)st.st_ino,
			    (unsigned long long)st.st_size, (unsigned long long)st.st_mtim.tv_sec);
	ret = path_exists(cached) ? 0 : extract(path, cached, err);
	if (!ret)
		*out = pil_take_ptr(&cached);
	return ret;
}

/* The kit's modules are those of one kernel.  Another one may well have all that it needs built in,
 * which cannot be seen from here; so this is for when it does not start. */
static char *find_mismatch(const char *vmlinux, const char *modules)
{
	const char *of_modules = modules ? strrchr(modules, '/') + 1 : "?";
	_auto_fd int fd = open(vmlinux, O_RDONLY | O_CLOEXEC);
	char version[64] = "of unknown version";
	struct stat st;
	void *elf;
	bool known;

	if (fd < 0 || fstat(fd, &st) || st.st_size <= 0)
		return NULL;
	elf = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (elf == MAP_FAILED)
		return NULL;
	known = kernel_image_version(elf, (size_t)st.st_size, version, sizeof(version));
	munmap(elf, (size_t)st.st_size);
	return known && !strcmp(version, of_modules)
		       ? NULL
		       : str_printf("the kernel is %s, the modules are of %s", version, of_modules);
}

int kernel_prepare(const struct state_dirs *dirs, const char *which,
		   const struct initramfs_file *files, struct kernel *out, struct pil_err *err)
{
	bool own = which && strchr(which, '/');
	const struct recipe *recipe = kit_recipe(own ? NULL : which);
	_auto_free char *dir = NULL;
	_auto_free char *stamp = NULL;
	int ret;

	*out = (struct kernel){0};
	if (!recipe)
		return unknown_suite(which, err);
	dir = kit_folder(dirs, recipe);
	stamp = str_printf("%s/stamp", dir);
	if (!path_exists(stamp)) {
		pil_err_hint(err, "pillion --update");
		return pil_err_say(err, ENOENT, "the guest kernel (%s) is not installed",
				   recipe->suite);
	}
	ret = own ? prepare_own(dirs, which, &out->vmlinux, err) : 0;
	if (own && !ret) {
		_auto_free char *modules = modules_folder(dir);

		out->mismatch = find_mismatch(out->vmlinux, modules);
	}
	if (!own)
		out->vmlinux = str_printf("%s/vmlinux", dir);
	if (!ret)
		ret = prepare_initramfs(dir, files, &out->initramfs, err);
	if (ret)
		kernel_finish(out);
	return ret;
}

char *kernel_release(const struct state_dirs *dirs, const char *which)
{
	bool own = which && strchr(which, '/');
	const struct recipe *recipe = kit_recipe(own ? NULL : which);
	_auto_free char *dir = recipe ? kit_folder(dirs, recipe) : NULL;
	_auto_free char *stamp = dir ? str_printf("%s/stamp", dir) : NULL;
	_auto_free char *modules = stamp && path_exists(stamp) ? modules_folder(dir) : NULL;

	if (!modules)
		return NULL;
	return str_printf("%s", own ? which : strrchr(modules, '/') + 1);
}
