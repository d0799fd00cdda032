/* SPDX-License-Identifier: Apache-2.0
 *
 * A file that claims to be a kernel: the input is the file, the same bytes are its initrd.  It is
 * loaded into private memory and into memory that a peer shares, with the same result. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/arch/x86_64/boot.h"
#include "vmm/arch/x86_64/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY_BYTES = 4 << 20 };

static int load(int file, int memory, int flags)
{
	struct guest_mem mem = {.n_ranges = 1, .fd = memory};
	struct boot_opts opts = {.kernel = "kernel",
				 .kernel_fd = file,
				 .initrd = "initrd",
				 .initrd_fd = file,
				 .cmdline = "quiet"};
	struct boot_entry entry = {0};
	struct pil_err err = {0};
	void *host =
		mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, memory, 0);
	int ret;

	if (host == MAP_FAILED)
		abort();
	mem.ranges[0] = (struct guest_mem_range){0, MEMORY_BYTES, host, 0};
	ret = boot_load(&mem, &opts, &entry, &err);
	if (ret == 0)
		assert(entry.entry_gpa >= LAYOUT_HIGH && entry.entry_gpa < MEMORY_BYTES);
	else
		assert(err.msg[0]);
	munmap(host, MEMORY_BYTES);
	return ret;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int file = -1, memory = -1;
	int ret;

	if (file < 0) {
		file = memfd_create("kernel", MFD_CLOEXEC);
		memory = memfd_create("guest", MFD_CLOEXEC);
	}
	if (ftruncate(file, 0) || pwrite(file, data, size, 0) != (ssize_t)size ||
	    ftruncate(memory, 0) || ftruncate(memory, MEMORY_BYTES))
		abort();
	ret = load(file, -1, MAP_PRIVATE | MAP_ANONYMOUS);
	assert(load(file, memory, MAP_SHARED) == ret);
	return 0;
}
