/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_files.h -- /dev, /proc and /sys of a sandbox. */
#ifndef PIL_KERNEL_FILES_H
#define PIL_KERNEL_FILES_H

struct argv;

/* Adds to bwrap's arguments.  Goes after the root and before anything below these folders. */
void kernel_files_add(struct argv *a);

#endif
