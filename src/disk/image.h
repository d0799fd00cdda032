/* SPDX-License-Identifier: Apache-2.0
 *
 * image.h -- the disk of a microVM: a sparse ext4 image, distros/NAME/disk.ext4, made of a
 * distribution's tree and turned back into one.
 *
 * Owners, modes, times, hard links, holes, extended attributes and device nodes survive the way
 * there and back; flags (chattr) and sockets do not.  A tree cannot hold owners above 65535 and
 * trusted.* attributes: image_to_tree() refuses them, and the image stays as it was.
 *
 * All of it runs in the user namespace that owns the tree, so that owners are what they are inside
 * and nothing needs root.  Called with registry_lock() held. */
#ifndef PIL_IMAGE_H
#define PIL_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

#define IMAGE_NAME "disk.ext4"

enum { IMAGE_MIN_MIB = 64 };

/* Makes @dir/disk.ext4 from @dir/rootfs, which stays; it can grow to @limit_bytes. */
int image_from_tree(const char *dir, uint64_t limit_bytes, struct pil_err *err) PIL_MUST_CHECK;

/* Makes @dir/rootfs from @dir/disk.ext4, which stays.  The caller holds image_open()'s descriptor.
 */
int image_to_tree(const char *dir, struct pil_err *err) PIL_MUST_CHECK;

/* The same of disk @image, elsewhere, to @dir/rootfs. */
int image_to_tree_at(const char *image, const char *dir, struct pil_err *err) PIL_MUST_CHECK;

/* Opens the disk @image for the one who uses it from now on, alone: the descriptor, or a copy of it
 * in another process, holds the image's lock until it is closed.  -EBUSY while somebody else does.
 * An image that was in use when its machine was killed is repaired as far as that can be done
 * without questions; -EUCLEAN with what to do otherwise. */
int image_open(const char *image, struct pil_err *err) PIL_MUST_CHECK;

/* Gives @dir/disk.ext4, which the caller holds by image_open(), another size: a new one takes its
 * place when it is whole.  -ENOSPC: what is in it needs more. */
int image_resize(const char *dir, uint64_t bytes, struct pil_err *err) PIL_MUST_CHECK;

/* Gives blocks that no file has back to the host's disk; the same caller. */
int image_compact(const char *dir, struct pil_err *err) PIL_MUST_CHECK;

/* What the first 4 KiB of an image say of it; for tests and fuzzing too. */
enum image_state { IMAGE_CLEAN, IMAGE_UNCLEAN, IMAGE_NOT_EXT4 };
enum image_state image_state(const uint8_t *start, size_t bytes);

#endif
