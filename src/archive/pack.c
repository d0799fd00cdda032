/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: libarchive walks through the tree without following links, gathers what
 * belongs to each file, and writes the archive.  A file with several names is written once; its
 * other names are links to the first.  Holes are named in the archive: their zeros are handed to
 * libarchive, which drops them.  Sockets are left out: a socket is nothing without its program.
 *
 * The tree is a guest's, and may be changed while it is read only if nobody has stopped the guest:
 * the caller does. */
#include "archive/pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

enum { NULLS_BYTES = 1 << 20 };

static const char nulls[NULLS_BYTES];

struct pack {
	struct archive *in, *out;
	struct archive_entry_linkresolver *links;
	struct pil_err *err;
};

static int failed(struct pack *p, struct archive *a, const char *what, const char *path)
{
	const char *text = archive_error_string(a);
	int code = archive_errno(a) > 0 ? archive_errno(a) : EIO;
	char why[256], safe[200];

	if (code == ENOSPC || code == EDQUOT)
		pil_err_hint(p->err, "is there room? df -h");
	return pil_err_say(p->err, code, "%s '%s': %s", what, str_escape(safe, sizeof(safe), path),
			   str_escape(why, sizeof(why), text ? text : "failed"));
}

/* Writes @size bytes, or zeros for @data NULL. */
static int put(struct pack *p, const char *data, int64_t size, const char *path)
{
	while (size > 0) {
		size_t now = size < NULLS_BYTES ? (size_t)size : NULLS_BYTES;
		la_ssize_t n = archive_write_data(p->out, data ? data : nulls, now);

		if (n <= 0)
			return failed(p, p->out, "write", path);
		if (data)
			data += n;
		size -= n;
	}
	return 0;
}

static int put_contents(struct pack *p, int64_t size, const char *path)
{
	int64_t at = 0;
	int ret = 0;

	while (!ret) {
		const void *block;
		int64_t offset;
		size_t bytes;
		int got = archive_read_data_block(p->in, &block, &bytes, &offset);

		if (got == ARCHIVE_EOF)
			break;
		if (got != ARCHIVE_OK)
			return failed(p, p->in, "read", path);
		if (offset > at)
			ret = put(p, NULL, offset - at, path);
		if (!ret)
			ret = put(p, block, (int64_t)bytes, path);
		at = offset + (int64_t)bytes;
	}
	return ret || at >= size ? ret : put(p, NULL, size - at, path);
}

static int put_entry(struct pack *p, struct archive_entry *e)
{
	_auto_free char *path = strdup(archive_entry_pathname(e));
	int64_t size;
	int ret;

	if (!path)
		return pil_err_set(p->err, ENOMEM, "pack");
	archive_entry_set_uname(e, NULL);
	archive_entry_set_gname(e, NULL);
	if (archive_write_header(p->out, e) < ARCHIVE_WARN)
		return failed(p, p->out, "write", path);
	size = archive_entry_size(e);
	ret = size > 0 ? put_contents(p, size, path) : 0;
	if (!ret && archive_write_finish_entry(p->out) != ARCHIVE_OK)
		ret = failed(p, p->out, "write", path);
	return ret;
}

/* The file at hand, as its first name or as a link to that. */
static int handle(struct pack *p, struct archive_entry *e)
{
	const char *path = archive_entry_pathname(e);
	struct archive_entry *spare = NULL;

	if (!path)
		return pil_err_say(p->err, EILSEQ, "a file whose name cannot be read");
	if (archive_entry_filetype(e) == AE_IFSOCK)
		return 0;
	if (archive_entry_filetype(e) != AE_IFREG)
		archive_entry_set_size(e, 0);
	archive_entry_linkify(p->links, &e, &spare);
	return e ? put_entry(p, e) : 0;
}

static int walk(struct pack *p)
{
	struct archive_entry *e = archive_entry_new();
	int ret = e ? 0 : pil_err_set(p->err, ENOMEM, "pack");

	while (!ret) {
		int got = archive_read_next_header2(p->in, e);

		if (got == ARCHIVE_EOF)
			break;
		if (got != ARCHIVE_OK)
			ret = failed(p, p->in, "read", "the tree");
		if (!ret)
			ret = handle(p, e);
		if (!ret && archive_read_disk_can_descend(p->in) &&
		    archive_read_disk_descend(p->in) != ARCHIVE_OK)
			ret = failed(p, p->in, "read", archive_entry_pathname(e));
		archive_entry_clear(e);
	}
	archive_entry_free(e);
	return ret;
}

static int open_out(struct pack *p, int fd, const char *filter)
{
	struct archive *out = p->out = archive_write_new();
	int ret = ARCHIVE_OK;

	if (!out)
		return pil_err_set(p->err, ENOMEM, "pack");
	if (!strcmp(filter, "gzip"))
		ret = archive_write_add_filter_gzip(out);
	else if (!strcmp(filter, "xz"))
		ret = archive_write_add_filter_xz(out);
	else if (!strcmp(filter, "zstd"))
		ret = archive_write_add_filter_zstd(out);
	if (ret != ARCHIVE_OK || archive_write_set_format_pax(out) != ARCHIVE_OK ||
	    archive_write_set_format_option(out, "pax", "xattrheader", "SCHILY") != ARCHIVE_OK ||
	    archive_write_set_bytes_in_last_block(out, 1) != ARCHIVE_OK || /* no zeros behind it */
	    archive_write_open_fd(out, fd) != ARCHIVE_OK)
		return failed(p, out, "begin", "the archive");
	return 0;
}

static int open_in(struct pack *p)
{
	p->in = archive_read_disk_new();
	p->links = archive_entry_linkresolver_new();
	if (!p->in || !p->links)
		return pil_err_set(p->err, ENOMEM, "pack");
	archive_entry_linkresolver_set_strategy(p->links, ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE);
	if (archive_read_disk_set_symlink_physical(p->in) != ARCHIVE_OK ||
	    archive_read_disk_set_behavior(p->in, ARCHIVE_READDISK_NO_FFLAGS |
							  ARCHIVE_READDISK_NO_TRAVERSE_MOUNTS) !=
		    ARCHIVE_OK ||
	    archive_read_disk_open(p->in, ".") != ARCHIVE_OK)
		return failed(p, p->in, "read", "the tree");
	return 0;
}

int pack_run(const char *tree, int fd, const char *filter, struct pil_err *err)
{
	struct pack p = {.err = err};
	int ret = chdir(tree) ? pil_err_set(err, errno, "go to folder '%s'", tree) : 0;

	if (!ret)
		ret = open_out(&p, fd, filter);
	if (!ret)
		ret = open_in(&p);
	if (!ret)
		ret = walk(&p);
	if (p.out && archive_write_close(p.out) != ARCHIVE_OK && !ret)
		ret = failed(&p, p.out, "finish", "the archive");
	archive_entry_linkresolver_free(p.links);
	archive_read_free(p.in);
	archive_write_free(p.out);
	return ret;
}
