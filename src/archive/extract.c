/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: libarchive reads the archive and makes the files; this file decides what is
 * made.  The process has been confined before (archive_main.c): its root folder is the tree itself,
 * so that symbolic links of the tree, whatever they point to, lead into the tree; a name with ".."
 * is refused besides.
 *
 * Files under /dev are left out: a machine has a /dev of its own.  Of the extended attributes those
 * are kept that a user namespace can hold.  A file takes the place of what had its name.
 *
 * A layer of an image is read twice.  First its whiteouts remove what they hide; then its files are
 * made.  So a whiteout hides only what lower layers have, in whatever order the layer lists them.
 *
 * A plain tar that was cut off between two files looks whole to libarchive.  But an archive ends
 * with blocks of zeros, and those were read, or not: see has_end(). */
#include "archive/extract.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/path.h"
#include "base/str.h"

enum { BLOCK_BYTES = 64 << 10, TAR_BLOCK = 512, MAX_XATTR_BYTES = 64 << 10 };

#define MAX_FILE_BYTES (UINT64_C(1) << 40) /* of one file, with its holes */
#define WHITEOUT       ".wh."
#define OPAQUE         ".wh..wh..opq"

struct extract {
	struct archive *in, *out;
	enum extract_pass pass;
	struct extract_limits *limits;
	char path[PATH_MAX]; /* of the file at hand, clean */
	int64_t data_end;    /* where its contents ended in the archive */
	uint64_t n_files;
	struct timespec root_times[2]; /* of the root folder, for the end */
	struct pil_err *err;
};

bool extract_clean_path(const char *path, char *out)
{
	size_t n = 0;

	if (strlen(path) >= PATH_MAX)
		return false;
	while (*path) {
		size_t len = strcspn(path, "/");

		if (len > NAME_MAX || (len == 2 && !memcmp(path, "..", 2)))
			return false;
		if (len && !(len == 1 && *path == '.')) {
			if (n)
				out[n++] = '/';
			memcpy(out + n, path, len);
			n += len;
		}
		path += len + (path[len] == '/');
	}
	out[n] = '\0';
	return true;
}

static PIL_PRINTF(3, 4) int refuse(struct extract *x, int code, const char *fmt, ...)
{
	char why[256], path[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return pil_err_say(x->err, code, "'%s' in the archive: %s",
			   str_escape(path, sizeof(path), x->path), why);
}

/* What libarchive says of @a. */
static int failed(struct extract *x, struct archive *a, const char *what)
{
	const char *text = archive_error_string(a);
	int code = a == x->in ? EBADMSG : archive_errno(a) > 0 ? archive_errno(a) : EIO;
	char why[256];

	str_escape(why, sizeof(why), text ? text : "failed");
	if (code == ENOSPC || code == EDQUOT)
		pil_err_hint(x->err, "is there room? df -h");
	if (a == x->in && !x->path[0])
		return pil_err_say(x->err, code, "%s: %s", what, why);
	return refuse(x, code, "%s: %s", what, why);
}

static bool is_below(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	return !strncmp(path, folder, n) && path[n] == '/';
}

static const char *last_step(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* ---- whiteouts ---- */

static int remove_path(struct extract *x, const char *path)
{
	int ret = path_remove_tree(path);

	return ret ? refuse(x, -ret, "remove '%s': %s", path, strerror(-ret)) : 0;
}

/* Removes all that is in @folder. */
static int empty_folder(struct extract *x, const char *folder)
{
	int ret = path_empty_folder(folder[0] ? folder : ".");

	return ret && ret != -ENOENT && ret != -ENOTDIR
		       ? refuse(x, -ret, "empty '%s': %s", folder, strerror(-ret))
		       : 0;
}

/* Does what the whiteout x->path says. */
static int apply_whiteout(struct extract *x)
{
	char *name = x->path + (last_step(x->path) - x->path);
	char target[PATH_MAX];
	int folder_len = (int)(name - x->path);

	snprintf(target, sizeof(target), "%.*s", folder_len > 0 ? folder_len - 1 : 0, x->path);
	if (!strcmp(name, OPAQUE))
		return empty_folder(x, target);
	if (!strncmp(name, WHITEOUT WHITEOUT, 2 * strlen(WHITEOUT))) /* aufs's own files */
		return 0;
	name += strlen(WHITEOUT);
	if (!name[0] || !strcmp(name, ".") || !strcmp(name, ".."))
		return refuse(x, EBADMSG, "a whiteout of nothing");
	snprintf(target, sizeof(target), "%.*s%s", folder_len, x->path, name);
	return remove_path(x, target);
}

/* ---- what may be made ---- */

static bool keeps_xattr(const char *name)
{
	return !strncmp(name, "user.", 5) || !strcmp(name, "security.capability");
}

/* Takes away what a tree in a user namespace cannot hold. */
static int filter_xattrs(struct extract *x, struct archive_entry *e)
{
	const void *values[64];
	const char *names[64];
	size_t sizes[64], n = 0;

	archive_entry_xattr_reset(e);
	for (;;) {
		const char *name;
		const void *value;
		size_t size;

		if (archive_entry_xattr_next(e, &name, &value, &size) != ARCHIVE_OK)
			break;
		if (!name || !keeps_xattr(name))
			continue;
		if (n == 64 || size > MAX_XATTR_BYTES)
			return refuse(x, E2BIG, "too many attributes");
		names[n] = strdup(name);
		values[n] = size ? memcpy(malloc(size), value, size) : NULL;
		sizes[n++] = size;
	}
	archive_entry_xattr_clear(e);
	while (n--) {
		archive_entry_xattr_add_entry(e, names[n], values[n], sizes[n]);
		free((void *)names[n]);
		free((void *)values[n]);
	}
	return 0;
}

static int check_link(struct extract *x, struct archive_entry *e)
{
	const char *target = archive_entry_hardlink(e);
	char clean[PATH_MAX];

	if (!target)
		return 0;
	if (!extract_clean_path(target, clean) || !clean[0])
		return refuse(x, EBADMSG, "a link out of the tree");
	archive_entry_set_hardlink(e, clean);
	return 0;
}

static int check_kind(struct extract *x, struct archive_entry *e)
{
	mode_t kind = archive_entry_filetype(e);

	if (archive_entry_hardlink(e))
		return 0;
	if (kind == AE_IFBLK || (kind == AE_IFCHR && archive_entry_rdev(e) != 0))
		return refuse(x, EPERM, "a device node (%c %u:%u), which belongs to /dev alone",
			      kind == AE_IFBLK ? 'b' : 'c', major(archive_entry_rdev(e)),
			      minor(archive_entry_rdev(e)));
	if (kind != AE_IFREG && kind != AE_IFDIR && kind != AE_IFLNK && kind != AE_IFIFO &&
	    kind != AE_IFCHR)
		return refuse(x, EBADMSG, "a file of an unknown kind");
	return 0;
}

static int check(struct extract *x, struct archive_entry *e)
{
	int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e);
	int ret = check_kind(x, e);

	if (ret)
		return ret;
	if (uid < 0 || gid < 0 || uid > EXTRACT_LAST_ID || gid > EXTRACT_LAST_ID)
		return refuse(x, EOVERFLOW,
			      "it belongs to %lld:%lld: a tree has users and groups up to %d only",
			      (long long)uid, (long long)gid, EXTRACT_LAST_ID);
	if (archive_entry_size(e) < 0 || (uint64_t)archive_entry_size(e) > MAX_FILE_BYTES)
		return refuse(x, EFBIG, "%lld bytes are more than a file may have",
			      (long long)archive_entry_size(e));
	if (x->limits->files == 0)
		return refuse(x, E2BIG, "too many files");
	x->limits->files--;
	archive_entry_set_fflags(e, 0, 0);
	ret = check_link(x, e);
	return ret ? ret : filter_xattrs(x, e);
}

/* Removes what is in the way of the file at hand. */
static int clear_place(struct extract *x, struct archive_entry *e)
{
	bool folder = archive_entry_filetype(e) == AE_IFDIR && !archive_entry_hardlink(e);
	struct stat st;

	if (lstat(x->path, &st) || (folder && S_ISDIR(st.st_mode)))
		return 0;
	if (archive_entry_hardlink(e) && !strcmp(archive_entry_hardlink(e), x->path))
		return refuse(x, EBADMSG, "a link to itself");
	return remove_path(x, x->path);
}

/* ---- making ---- */

static int copy_contents(struct extract *x)
{
	for (;;) {
		const void *block;
		int64_t offset;
		size_t size;
		int ret = archive_read_data_block(x->in, &block, &size, &offset);

		if (ret == ARCHIVE_EOF)
			return 0;
		if (ret != ARCHIVE_OK)
			return failed(x, x->in, "read");
		if (size > x->limits->bytes)
			return refuse(x, ENOSPC, "the files need more than there is room for");
		x->limits->bytes -= size;
		if (archive_write_data_block(x->out, block, size, offset) != ARCHIVE_OK)
			return failed(x, x->out, "write");
	}
}

/* libarchive does not give "." its times. */
static void note_root_times(struct extract *x, struct archive_entry *e)
{
	x->root_times[0] = (struct timespec){archive_entry_atime(e), archive_entry_atime_nsec(e)};
	x->root_times[1] = (struct timespec){archive_entry_mtime(e), archive_entry_mtime_nsec(e)};
	if (!archive_entry_mtime_is_set(e))
		x->root_times[1].tv_nsec = UTIME_OMIT;
	if (!archive_entry_atime_is_set(e))
		x->root_times[0].tv_nsec = UTIME_OMIT;
}

static int make(struct extract *x, struct archive_entry *e)
{
	int ret = clear_place(x, e);

	if (ret)
		return ret;
	archive_entry_set_pathname(e, x->path[0] ? x->path : ".");
	if (!x->path[0])
		note_root_times(x, e);
	if (archive_write_header(x->out, e) != ARCHIVE_OK)
		return failed(x, x->out, "make");
	if (archive_entry_size(e) > 0 && !archive_entry_hardlink(e))
		ret = copy_contents(x);
	if (!ret && archive_write_finish_entry(x->out) != ARCHIVE_OK)
		ret = failed(x, x->out, "finish");
	return ret;
}

/* One file of the archive. */
static int handle(struct extract *x, struct archive_entry *e)
{
	const char *path = archive_entry_pathname(e);
	bool whiteout;
	int ret;

	x->path[0] = '\0';
	if (!path || !extract_clean_path(path, x->path)) {
		snprintf(x->path, sizeof(x->path), "%.200s", path ? path : "?");
		return refuse(x, EBADMSG, "the name leads out of the tree, or is too long");
	}
	whiteout =
		x->pass != EXTRACT_ALL && !strncmp(last_step(x->path), WHITEOUT, strlen(WHITEOUT));
	if (x->pass == EXTRACT_WHITEOUTS)
		return whiteout ? apply_whiteout(x) : 0;
	if (whiteout || is_below(x->path, "dev"))
		return 0;
	if (!x->path[0] && archive_entry_filetype(e) != AE_IFDIR)
		return refuse(x, EBADMSG, "the root is no folder");
	ret = check(x, e);
	if (!ret)
		ret = make(x, e);
	x->n_files++;
	return ret;
}

/* Has the archive the zeros at its end?  Between the last file's contents, padded, and what has
 * been read of it, there must be a block of them. */
static bool has_end(struct extract *x)
{
	int64_t end = (x->data_end + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;

	return archive_filter_bytes(x->in, 0) >= end + TAR_BLOCK;
}

static int read_all(struct extract *x)
{
	struct archive_entry *e;
	int ret = 0, got;

	while (!ret && (got = archive_read_next_header(x->in, &e)) != ARCHIVE_EOF) {
		if (got != ARCHIVE_OK && got != ARCHIVE_WARN) {
			x->path[0] = '\0';
			return failed(x, x->in, "read the archive");
		}
		ret = handle(x, e);
		if (!ret && archive_read_data_skip(x->in) < ARCHIVE_WARN)
			ret = failed(x, x->in, "read");
		x->data_end = archive_filter_bytes(x->in, 0);
	}
	if (!ret && !has_end(x))
		ret = pil_err_say(x->err, EBADMSG, "the archive is cut off behind '%.100s'",
				  x->path);
	return ret;
}

static int open_in(struct extract *x, int fd)
{
	x->in = archive_read_new();
	if (!x->in || archive_read_support_format_tar(x->in) != ARCHIVE_OK ||
	    archive_read_support_filter_gzip(x->in) != ARCHIVE_OK ||
	    archive_read_support_filter_xz(x->in) != ARCHIVE_OK ||
	    archive_read_support_filter_zstd(x->in) != ARCHIVE_OK)
		return pil_err_set(x->err, ENOMEM, "read the archive");
	if (archive_read_open_fd(x->in, fd, BLOCK_BYTES) != ARCHIVE_OK)
		return failed(x, x->in, "read the archive");
	return 0;
}

static int open_out(struct extract *x)
{
	x->out = archive_write_disk_new();
	if (!x->out ||
	    archive_write_disk_set_options(x->out,
					   ARCHIVE_EXTRACT_OWNER | ARCHIVE_EXTRACT_PERM |
						   ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_ACL |
						   ARCHIVE_EXTRACT_XATTR | ARCHIVE_EXTRACT_UNLINK |
						   ARCHIVE_EXTRACT_SECURE_NODOTDOT) != ARCHIVE_OK)
		return pil_err_set(x->err, ENOMEM, "make files");
	return 0;
}

int extract_run(int fd, enum extract_pass pass, struct extract_limits *limits, struct pil_err *err)
{
	struct extract *x = calloc(1, sizeof(*x));
	int ret;

	if (!x)
		return pil_err_set(err, ENOMEM, "read the archive");
	*x = (struct extract){.pass = pass,
			      .limits = limits,
			      .err = err,
			      .root_times = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}}};
	ret = open_out(x);
	if (!ret)
		ret = open_in(x, fd);
	if (!ret)
		ret = read_all(x);
	if (!ret && pass == EXTRACT_ALL && x->n_files == 0)
		ret = pil_err_say(err, EBADMSG, "there is nothing in the archive");
	x->path[0] = '\0';
	if (x->out && archive_write_close(x->out) != ARCHIVE_OK && !ret)
		ret = failed(x, x->out, "finish the folders");
	if (!ret && pass != EXTRACT_WHITEOUTS && utimensat(AT_FDCWD, ".", x->root_times, 0))
		ret = pil_err_set(err, errno, "set the times of the root");
	archive_write_free(x->out);
	archive_read_free(x->in);
	free(x);
	return ret;
}
