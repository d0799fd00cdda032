/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_image.h -- the uncompressed kernel inside a distribution's vmlinuz.
 *
 * A vmlinuz is a bzImage: a boot loader's header, a decompressor, and the ELF file that the monitor
 * wants, compressed (Documentation/arch/x86/boot.rst: payload_offset, payload_length). */
#ifndef PIL_KERNEL_IMAGE_H
#define PIL_KERNEL_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct archive;

enum { KERNEL_IMAGE_MAX_BYTES = 512 << 20 }; /* uncompressed */

/* The ELF file in @image, in *@elf (heap, the caller's).  An image that is an ELF file already is
 * copied.  -ENOEXEC, with what is wrong, for anything else. */
int kernel_image_extract(const uint8_t *image, size_t image_bytes, uint8_t **elf, size_t *elf_bytes,
			 struct pil_err *err) PIL_MUST_CHECK;

/* Which version the ELF kernel @elf says it is, "6.12.1-cloud-amd64", in @out; false: it does not.
 */
bool kernel_image_version(const uint8_t *elf, size_t elf_bytes, char *out, size_t out_bytes);

/* Has libarchive undo the compressions that kernels and their modules come in.  Not all that it
 * knows: for some it starts other programs. */
bool kernel_image_allow_filters(struct archive *a);

#endif
