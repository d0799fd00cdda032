/* SPDX-License-Identifier: Apache-2.0
 *
 * A swap disk has no name: O_TMPFILE, or a file that is unlinked at once where the file system has
 * no O_TMPFILE. */
#include "machine/swap.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"

enum { PAGE_BYTES = 4096 };

struct swap_header { /* union swap_header of <linux/swap.h>, the part after the boot bits */
	uint8_t boot_bits[1024];
	uint32_t version, last_page, n_bad_pages;
	uint8_t uuid[16], label[16];
	uint8_t zero[PAGE_BYTES - 1024 - 12 - 32 - 10];
	char magic[10];
};
static_assert(sizeof(struct swap_header) == PAGE_BYTES, "swap_header");

/* Some file systems cannot make a file without a name. */
static int open_nameless(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	_auto_free char *path = NULL;

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd;
	path = str_printf("%s/swap.XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

int swap_create(const char *dir, uint64_t bytes, struct pil_err *err)
{
	uint64_t pages = bytes / PAGE_BYTES;
	struct swap_header h = {.version = htole32(1)};
	_auto_fd int fd = -1;

	if (pages < 16 || pages > UINT32_MAX)
		return pil_err_say(err, EINVAL, "swap of %llu bytes: 64 KiB to 16 TiB",
				   (unsigned long long)bytes);
	h.last_page = htole32((uint32_t)(pages - 1));
	memcpy(h.magic, "SWAPSPACE2", sizeof(h.magic));
	fd = open_nameless(dir);
	if (fd < 0 || ftruncate(fd, (off_t)(pages * PAGE_BYTES)) ||
	    pwrite(fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
		return pil_err_set(err, errno, "make swap in '%s'", dir);
	return pil_take_fd(&fd);
}
