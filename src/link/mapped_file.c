/* SPDX-License-Identifier: Apache-2.0
 *
 * mapped_file.c -- see mapped_file.h.  The kernel's list is asked each time: a program may put
 * another file where one was.  Since 6.11 that is one question about one address (PROCMAP_QUERY,
 * <linux/fs.h>); before, it is reading text. */
#include "link/mapped_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"

struct map_query { /* struct procmap_query of <linux/fs.h>, which older headers lack */
	uint64_t size, flags, address;
	uint64_t start, end, vma_flags, page_bytes, offset, inode;
	uint32_t dev_major, dev_minor;
	uint32_t name_size, build_id_size;
	uint64_t name, build_id;
};
static_assert(sizeof(struct map_query) == 104, "procmap_query");

#define MAP_QUERY _IOWR('f', 17, struct map_query)
enum { MAP_WRITABLE = 0x02, MAP_IS_SHARED = 0x08, MAP_FILE_BACKED = 0x20 };

/* 1: found; 0: not what we want; -1: the kernel does not know the question. */
static int ask(int maps_fd, uintptr_t address, uint64_t bytes, struct mapped_file *out)
{
	struct map_query q = {
		.size = sizeof(q),
		.flags = MAP_FILE_BACKED,
		.address = address,
		.name_size = sizeof(out->path),
		.name = (uintptr_t)out->path,
	};

	if (ioctl(maps_fd, (int)MAP_QUERY, &q)) /* musl's takes an int */
		return errno == ENOTTY ? -1 : 0;
	if (!(q.vma_flags & MAP_IS_SHARED) || (q.vma_flags & MAP_WRITABLE) || address < q.start ||
	    bytes > q.end - address)
		return 0;
	out->device = makedev(q.dev_major, q.dev_minor);
	out->inode = q.inode;
	out->offset = q.offset + (address - q.start);
	return 1;
}

static bool read_list(int maps_fd, uintptr_t address, uint64_t bytes, struct mapped_file *out)
{
	char line[MAPPED_FILE_MAX_PATH + 128], mode[5];
	uint64_t start, end, offset;
	unsigned major, minor;
	FILE *f = fdopen(dup(maps_fd), "re");
	bool found = false;

	while (f && fgets(line, sizeof(line), f)) {
		int at = 0;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n",
			   &start, &end, mode, &offset, &major, &minor, &out->inode, &at) < 7 ||
		    address >= end)
			continue;
		line[strcspn(line, "\n")] = '\0';
		found = address >= start && bytes <= end - address && mode[1] == '-' &&
			mode[3] == 's' && line[at] == '/';
		if (found) {
			snprintf(out->path, sizeof(out->path), "%.*s", MAPPED_FILE_MAX_PATH - 1,
				 line + at);
			out->device = makedev(major, minor);
			out->offset = offset + (address - start);
		}
		break;
	}
	if (f)
		fclose(f);
	return found;
}

bool mapped_file_find(const void *data, uint64_t bytes, uint64_t costly_bytes,
		      struct mapped_file *out)
{
	_auto_fd int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	int known;

	if (fd < 0)
		return false;
	known = ask(fd, (uintptr_t)data, bytes, out);
	if (known < 0 && bytes >= costly_bytes)
		return read_list(fd, (uintptr_t)data, bytes, out);
	return known == 1;
}

int mapped_file_open(const struct mapped_file *file, uint64_t *file_bytes)
{
	_auto_fd int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_ino != file->inode ||
	    st.st_dev != file->device || st.st_size < 0)
		return -1;
	*file_bytes = (uint64_t)st.st_size;
	return pil_take_fd(&fd);
}
