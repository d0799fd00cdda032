/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads a bzImage and decompresses its payload.  The file may be anybody's, so it is checked like
 * a peer's data: offsets against its length, the result against a largest size. */
#include "kit/kernel_image.h"

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/fd.h"

enum { /* of the setup header */
       SETUP_SECTS = 0x1f1,
       MAGIC = 0x202,
       PROTOCOL = 0x206,
       PAYLOAD_OFFSET = 0x248,
       PAYLOAD_BYTES = 0x24c,
       HEADER_END = 0x250,
       SECTOR = 512,
       PROTOCOL_WITH_PAYLOAD = 0x208,
};

static uint32_t get_u32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static bool is_elf(const uint8_t *p, size_t bytes)
{
	return bytes > 64 && !memcmp(p, "\177ELF", 4);
}

/* Where the compressed kernel lies in a bzImage; NULL: it is none. */
static const uint8_t *find_payload(const uint8_t *image, size_t bytes, size_t *payload_bytes)
{
	size_t start, offset, len;

	if (bytes < HEADER_END || memcmp(image + MAGIC, "HdrS", 4) ||
	    (image[PROTOCOL] | image[PROTOCOL + 1] << 8) < PROTOCOL_WITH_PAYLOAD)
		return NULL;
	start = ((image[SETUP_SECTS] ? image[SETUP_SECTS] : 4u) + 1u) * SECTOR;
	offset = get_u32(image + PAYLOAD_OFFSET);
	len = get_u32(image + PAYLOAD_BYTES);
	if (start > bytes || offset > bytes - start || len > bytes - start - offset || len <= 8)
		return NULL;
	*payload_bytes = len;
	return image + start + offset;
}

bool kernel_image_allow_filters(struct archive *a)
{
	return archive_read_support_filter_gzip(a) == ARCHIVE_OK &&
	       archive_read_support_filter_bzip2(a) == ARCHIVE_OK &&
	       archive_read_support_filter_lzma(a) == ARCHIVE_OK &&
	       archive_read_support_filter_xz(a) == ARCHIVE_OK &&
	       archive_read_support_filter_lz4(a) == ARCHIVE_OK &&
	       archive_read_support_filter_zstd(a) == ARCHIVE_OK;
}

/* Reads all of one compressed stream, of whatever kind it is, into @out; the bytes, or -1. */
static la_ssize_t decompress(const uint8_t *data, size_t bytes, uint8_t *out, size_t out_bytes)
{
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	la_ssize_t n = -1, done = 0;

	if (a && kernel_image_allow_filters(a) &&
	    archive_read_support_format_raw(a) == ARCHIVE_OK &&
	    archive_read_open_memory(a, data, bytes) == ARCHIVE_OK &&
	    archive_read_next_header(a, &entry) == ARCHIVE_OK)
		do {
			n = archive_read_data(a, out + done, out_bytes - (size_t)done);
			done += n > 0 ? n : 0;
		} while (n > 0 && (size_t)done < out_bytes);
	archive_read_free(a);
	return n < 0 && done == 0 ? -1 : done;
}

int kernel_image_extract(const uint8_t *image, size_t image_bytes, uint8_t **elf, size_t *elf_bytes,
			 struct pil_err *err)
{
	_auto_free uint8_t *out = NULL;
	const uint8_t *payload = NULL;
	size_t payload_bytes = 0, bytes = image_bytes;

	if (!is_elf(image, image_bytes)) {
		payload = find_payload(image, image_bytes, &payload_bytes);
		if (!payload)
			return pil_err_say(err, ENOEXEC, "it is neither a bzImage nor an ELF file");
		/* the kernel's build appends the uncompressed size to the stream */
		payload_bytes -= sizeof(uint32_t);
		bytes = get_u32(payload + payload_bytes);
	}
	if (bytes > KERNEL_IMAGE_MAX_BYTES || bytes < 4096)
		return pil_err_say(err, ENOEXEC, "it claims to be %zu bytes long", bytes);
	out = malloc(bytes);
	if (!out)
		return pil_err_set(err, ENOMEM, "extract a kernel");
	if (!payload)
		memcpy(out, image, bytes);
	else if (decompress(payload, payload_bytes, out, bytes) != (la_ssize_t)bytes ||
		 !is_elf(out, bytes))
		return pil_err_say(err, ENOEXEC,
				   "its compressed part is damaged, or of an unknown kind");
	*elf_bytes = bytes;
	*elf = pil_take_ptr(&out);
	return 0;
}

bool kernel_image_version(const uint8_t *elf, size_t elf_bytes, char *out, size_t out_bytes)
{
	static const char banner[] = "Linux version ";
	const uint8_t *end = elf + elf_bytes;

	for (const uint8_t *at = elf;
	     (at = memmem(at, (size_t)(end - at), banner, strlen(banner)));) {
		size_t n = 0;

		at += strlen(banner);
		while (n < (size_t)(end - at) && at[n] > ' ' && at[n] < 0x7f)
			n++;
		if (n == 0 || n >= out_bytes || !isdigit(at[0]) || n == (size_t)(end - at))
			continue;
		memcpy(out, at, n);
		out[n] = '\0';
		return true;
	}
	return false;
}
