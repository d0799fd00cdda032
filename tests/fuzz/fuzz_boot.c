/* SPDX-License-Identifier: Apache-2.0
 *
 * A file that claims to be a kernel: the input is the file, the same bytes are its initrd. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "boot.h"
#include "layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY_BYTES = 4 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	struct guest_mem mem = {.n_ranges = 1, .fd = -1};
	struct boot_opts opts = {.kernel = "kernel", .initrd = "initrd", .cmdline = "quiet"};
	struct boot_entry entry = {0};
	struct pil_err err = {0};
	void *host = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (fd < 0)
		fd = memfd_create("kernel", MFD_CLOEXEC);
	if (host == MAP_FAILED || ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	mem.ranges[0] = (struct guest_mem_range){0, MEMORY_BYTES, host, 0};
	opts.kernel_fd = opts.initrd_fd = fd;
	if (boot_load(&mem, &opts, &entry, &err) == 0)
		assert(entry.entry_gpa >= LAYOUT_HIGH && entry.entry_gpa < MEMORY_BYTES);
	else
		assert(err.msg[0]);
	munmap(host, MEMORY_BYTES);
	return 0;
}
