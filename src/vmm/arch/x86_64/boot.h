/* SPDX-License-Identifier: Apache-2.0
 *
 * boot.h -- putting a kernel into the guest's memory, by the PVH boot protocol.
 *
 * The kernel is an uncompressed ELF file (vmlinux) with an entry note of that protocol.  The files
 * are not trusted: a bad one is an error, never more. */
#ifndef PIL_BOOT_H
#define PIL_BOOT_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "virtio/guest_mem.h"

struct boot_opts {
	const char *kernel; /* path; borrowed, as all here */
	int kernel_fd;
	const char *initrd; /* may be NULL */
	int initrd_fd;
	const char *cmdline;
	uint64_t rsdp_gpa;
};

struct boot_entry {
	uint32_t entry_gpa, start_info_gpa;
};

/* Loads what @opts names and writes the start information; -errno. */
int boot_load(struct guest_mem *mem, const struct boot_opts *opts, struct boot_entry *entry,
	      struct pil_err *err) PIL_MUST_CHECK;

#endif
