/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the archive is not compressed, since the kernel unpacks plain files faster
 * than it could decompress them; modules are decompressed here, once, instead of at every boot.
 * Modules are numbered in the order in which pillion-init loads them, dependencies first, so that
 * it needs no depmod data. */
#include "kit/initramfs.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>

#include "agent/exposed.h"
#include "base/fd.h"
#include "base/str.h"
#include "kit/kernel_image.h"

enum { MAX_FILE_BYTES = 64 << 20 };

static const char *const modules_in_order[] = {
	"failover",
	"net_failover",
	"virtio",
	"virtio_ring",
	"virtio_pci_modern_dev",
	"virtio_pci_legacy_dev",
	"virtio_pci",
	"virtio_console",
	"vsock",
	"vmw_vsock_virtio_transport_common",
	"vmw_vsock_virtio_transport",
	"virtio_blk",
	"virtio_net",
	"virtio-rng",
	"virtio_balloon",
	"fuse",
	"virtiofs",
};

static int say(struct archive *out, const char *path, struct pil_err *err)
{
	const char *why = archive_error_string(out);

	return pil_err_say(err, EIO, "write '%s': %s", path, why ? why : "no memory");
}

static int add_entry(struct archive *out, const char *name, unsigned mode, const void *data,
		     size_t bytes)
{
	struct archive_entry *e = archive_entry_new();
	int ret = -ENOMEM;

	if (!e)
		return ret;
	archive_entry_set_pathname(e, name);
	archive_entry_set_mode(e, (mode_t)mode);
	archive_entry_set_nlink(e, S_ISDIR(mode) ? 2 : 1);
	archive_entry_set_size(e, (la_int64_t)bytes);
	archive_entry_set_mtime(e, 0, 0);
	if (archive_write_header(out, e) == ARCHIVE_OK &&
	    (bytes == 0 || archive_write_data(out, data, bytes) == (la_ssize_t)bytes))
		ret = 0;
	archive_entry_free(e);
	return ret;
}

/* All of @path, decompressed if it is compressed; -errno or the bytes. */
static la_ssize_t read_whole(const char *path, char **data)
{
	_auto_free char *out = malloc(MAX_FILE_BYTES);
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	la_ssize_t n = -1, done = 0;

	if (!out || !a)
		return -ENOMEM;
	if (!kernel_image_allow_filters(a)) {
		archive_read_free(a);
		return -ENOSYS;
	}
	archive_read_support_format_raw(a);
	archive_read_support_format_empty(a);
	if (archive_read_open_filename(a, path, 1 << 16) == ARCHIVE_OK &&
	    archive_read_next_header(a, &entry) == ARCHIVE_OK)
		while ((n = archive_read_data(a, out + done, MAX_FILE_BYTES - (size_t)done)) > 0)
			done += n;
	archive_read_free(a);
	if (n < 0 || done == MAX_FILE_BYTES)
		return -EIO;
	*data = pil_take_ptr(&out);
	return done;
}

/* The index in modules_in_order of file @name, "virtio_blk.ko" or "virtio_blk.ko.xz"; -1: none. */
static int module_index(const char *name)
{
	const char *end = strstr(name, ".ko");

	for (size_t i = 0; end && i < ARRAY_SIZE(modules_in_order); i++)
		if (strlen(modules_in_order[i]) == (size_t)(end - name) &&
		    !strncmp(name, modules_in_order[i], (size_t)(end - name)))
			return (int)i;
	return -1;
}

static int add_module(struct archive *out, int index, const char *path, struct pil_err *err)
{
	_auto_free char *name = str_printf("modules/%02d-%s.ko", index, modules_in_order[index]);
	_auto_free char *data = NULL;
	la_ssize_t bytes = read_whole(path, &data);

	if (bytes < 0)
		return pil_err_set(err, (int)-bytes, "read module '%s'", path);
	return add_entry(out, name, S_IFREG | 0644, data, (size_t)bytes) ? say(out, name, err) : 0;
}

static int add_modules(struct archive *out, const char *folder, struct pil_err *err)
{
	char *roots[] = {(char *)folder, NULL};
	FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	const FTSENT *f;
	int index, ret = 0;

	if (!walk)
		return pil_err_set(err, errno, "read the modules in '%s'", folder);
	while (!ret && (f = fts_read(walk)))
		if (f->fts_info == FTS_F && (index = module_index(f->fts_name)) >= 0)
			ret = add_module(out, index, f->fts_path, err);
	fts_close(walk);
	return ret;
}

static int add_files(struct archive *out, const struct initramfs_file *files, struct pil_err *err)
{
	for (; files->to; files++) {
		_auto_free char *data = NULL;
		ssize_t bytes = files->from ? pil_read_file(files->from, MAX_FILE_BYTES, &data) : 0;

		if (bytes < 0)
			return pil_err_set(err, (int)-bytes, "read '%s'", files->from);
		if (files->from &&
		    add_entry(out, files->to, S_IFREG | files->mode, data, (size_t)bytes))
			return say(out, files->to, err);
	}
	return 0;
}

static int write_archive(int fd, const char *modules, const struct initramfs_file *files,
			 struct pil_err *err)
{
	static const char *const folders[] = {"dev",          "proc",          "sys",
					      "modules",      "newroot",       "usr",
					      "usr/lib",      &EXPOSED_DIR[1], &EXPOSED_BIN[1],
					      &EXPOSED_LIB[1]};
	struct archive *out = archive_write_new();
	int ret = 0;

	if (!out || archive_write_set_format_cpio_newc(out) != ARCHIVE_OK ||
	    archive_write_set_bytes_in_last_block(out, 1) != ARCHIVE_OK ||
	    archive_write_open_fd(out, fd) != ARCHIVE_OK)
		ret = say(out, "initramfs", err);
	for (size_t i = 0; !ret && i < ARRAY_SIZE(folders); i++)
		if (add_entry(out, folders[i], S_IFDIR | 0755, NULL, 0))
			ret = say(out, folders[i], err);
	if (!ret)
		ret = add_modules(out, modules, err);
	if (!ret)
		ret = add_files(out, files, err);
	if (!ret && archive_write_close(out) != ARCHIVE_OK)
		ret = say(out, "initramfs", err);
	archive_write_free(out);
	return ret;
}

int initramfs_write(const char *path, const char *modules, const struct initramfs_file *files,
		    struct pil_err *err)
{
	_auto_free char *part = str_printf("%s.XXXXXX", path);
	_auto_fd int fd = mkostemp(part, O_CLOEXEC);
	int ret;

	if (fd < 0)
		return pil_err_set(err, errno, "write '%s'", part);
	ret = write_archive(fd, modules, files, err);
	if (!ret && (fchmod(fd, 0644) || rename(part, path)))
		ret = pil_err_set(err, errno, "write '%s'", path);
	if (ret)
		unlink(part);
	return ret;
}
