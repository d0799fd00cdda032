/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_files.h -- /dev, /proc, /run and /sys of a sandbox. */
#ifndef PIL_KERNEL_FILES_H
#define PIL_KERNEL_FILES_H

struct room;

/* Goes before anything below these folders. */
void kernel_files_add(struct room *r);

#endif
