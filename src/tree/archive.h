/* SPDX-License-Identifier: Apache-2.0
 *
 * archive.h -- trees from archives and container images, and archives of trees.
 *
 * pillion-archive does the work, in a pen, in the user namespace that owns the trees: what somebody
 * else packed is read where there is nothing but it and the tree.  See archive/extract.h for what
 * is refused. */
#ifndef PIL_ARCHIVE_H
#define PIL_ARCHIVE_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

enum { ARCHIVE_MAX_ENV = 64 };

/* What a container image says of its programs. */
struct archive_told {
	unsigned uid;
	char *workdir;                  /* NULL: nothing */
	char *env[ARCHIVE_MAX_ENV + 1]; /* NULL-terminated */
};
void archive_told_finish(struct archive_told *told);

/* Parses what pillion-archive prints of an image; for tests and fuzzing too. */
bool archive_told_parse(const char *text, size_t len, struct archive_told *told);

#define ARCHIVE_TOLD_NAME "image.json" /* in a distribution's folder */
int archive_told_save(const struct archive_told *told, const char *path,
		      struct pil_err *err) PIL_MUST_CHECK;
/* Nothing where there is none; the caller calls archive_told_finish(). */
void archive_told_load(struct archive_told *told, const char *path);

/* Has the tree what a distribution has?  @what: how people call it. */
int archive_check_tree(const char *rootfs, const char *what, struct pil_err *err) PIL_MUST_CHECK;

/* Makes the new folder @rootfs of the archive @fd: tar, or that compressed by gzip, xz or zstd.
 * @what: how people call it.  On failure what is left of @rootfs is the caller's. */
int archive_unpack(int fd, const char *rootfs, const char *what,
		   struct pil_err *err) PIL_MUST_CHECK;

/* The same of the container image in @folder.  @tag may be NULL.  @told: the caller calls
 * archive_told_finish(). */
int archive_unpack_image(const char *folder, const char *tag, const char *rootfs,
			 struct archive_told *told, struct pil_err *err) PIL_MUST_CHECK;

/* Packs @rootfs to @fd.  @format is one of archive_formats[]. */
struct archive_format {
	const char *name, *filter; /* "tar.gz", "gzip" */
};
extern const struct archive_format archive_formats[]; /* ended by name NULL */
int archive_pack(const char *rootfs, int fd, const char *filter,
		 struct pil_err *err) PIL_MUST_CHECK;

#endif
