/* SPDX-License-Identifier: Apache-2.0
 *
 * initramfs.h -- what a microVM's kernel starts from: pillion-init, the modules of the machine's
 * devices, and the files that programs in the machine see below /usr/lib/pillion. */
#ifndef PIL_INITRAMFS_H
#define PIL_INITRAMFS_H

#include "base/compiler.h"
#include "base/err.h"

struct initramfs_file {
	const char *from; /* on the host; NULL: left out */
	const char *to;   /* below /, without the slash */
	unsigned mode;
};

/* Writes a cpio archive to @path (at once: a reader sees the old or the new one).  @modules is the
 * folder of a kernel's modules, which may be compressed; those that a machine needs are found by
 * name, and are simply not there when the kernel has them built in.  @files ends with .to NULL. */
int initramfs_write(const char *path, const char *modules, const struct initramfs_file *files,
		    struct pil_err *err) PIL_MUST_CHECK;

#endif
