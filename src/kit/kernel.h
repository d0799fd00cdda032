/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel.h -- the guest kernel kit: Debian's cloud kernel, and what is made of it. */
#ifndef PIL_KERNEL_H
#define PIL_KERNEL_H

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"
#include "kit/initramfs.h"
#include "kit/kit.h"

struct kernel { /* paths, heap: kernel_finish() */
	char *vmlinux, *initramfs;
	char *mismatch; /* one line: why the modules cannot be loaded.  NULL: they can */
};
void kernel_finish(struct kernel *kernel);

/* kit_ensure() for the kit of @suite ("trixie", see recipes_kernel; NULL: the first of them). */
int kernel_kit_ensure(const struct state_dirs *dirs, const char *suite, enum kit_wish wish,
		      struct pil_err *err) PIL_MUST_CHECK;

/* kit_packaged() of it; heap. */
char *kernel_kit_packaged(const struct state_dirs *dirs, const char *suite);

/* The kernel a machine boots, and an initramfs with @files in it, made anew when a file of it has
 * changed.  @which is a suite as above, or the path of a vmlinux or vmlinuz that goes with the
 * default kit's modules.  No lock is needed. */
int kernel_prepare(const struct state_dirs *dirs, const char *which,
		   const struct initramfs_file *files, struct kernel *out,
		   struct pil_err *err) PIL_MUST_CHECK;

/* What `uname -r` says in a machine that boots @which, as above, or @which itself where that is a
 * path; heap.  NULL: it is not installed. */
char *kernel_release(const struct state_dirs *dirs, const char *which);

#endif
