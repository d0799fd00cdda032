/* SPDX-License-Identifier: Apache-2.0
 *
 * image_files.h -- the files in an ext4 image: out into a folder, and what mke2fs leaves undone.
 *
 * The image of a machine was written by its guest: a damaged or hostile one ends in an error. */
#ifndef PIL_IMAGE_FILES_H
#define PIL_IMAGE_FILES_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"

/* Device nodes cannot exist in a tree, since no user namespace may make them.  There they are empty
 * files of root that nobody may read, with this attribute: "b|c MAJOR MINOR MODE UID GID". */
#define IMAGE_DEVICE_XATTR "user.pillion.device"

struct image_files;

int image_files_open(struct image_files **out, const char *image, bool write,
		     struct pil_err *err) PIL_MUST_CHECK;

/* Writes what is to be written.  NULL is fine. */
int image_files_close(struct image_files *files, struct pil_err *err) PIL_MUST_CHECK;

/* Makes all files of the image in the current folder, which is empty and nobody else's. */
int image_files_extract(struct image_files *files, struct pil_err *err) PIL_MUST_CHECK;

/* Completes an image that mke2fs has just made from the current folder. */
int image_files_finish(struct image_files *files, struct pil_err *err) PIL_MUST_CHECK;

#endif
