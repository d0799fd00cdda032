/* SPDX-License-Identifier: Apache-2.0 */
#include "swap.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"

enum { PAGE_BYTES = 4096 };

struct swap_header { /* union swap_header of <linux/swap.h>, the part after the boot bits */
	uint8_t boot_bits[1024];
	uint32_t version, last_page, n_bad_pages;
	uint8_t uuid[16], label[16];
	uint8_t zero[PAGE_BYTES - 1024 - 12 - 32 - 10];
	char magic[10];
};
static_assert(sizeof(struct swap_header) == PAGE_BYTES, "swap_header");

int swap_create(const char *path, uint64_t bytes, struct pil_err *err)
{
	uint64_t pages = bytes / PAGE_BYTES;
	struct swap_header h = {.version = htole32(1)};
	_auto_fd int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (pages < 16 || pages > UINT32_MAX)
		return pil_err_say(err, EINVAL, "swap of %llu bytes: 64 KiB to 16 TiB",
				   (unsigned long long)bytes);
	h.last_page = htole32((uint32_t)(pages - 1));
	memcpy(h.magic, "SWAPSPACE2", sizeof(h.magic));
	if (fd < 0 || ftruncate(fd, (off_t)(pages * PAGE_BYTES)) ||
	    pwrite(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
		return pil_err_set(err, errno, "make swap '%s'", path);
	return 0;
}
