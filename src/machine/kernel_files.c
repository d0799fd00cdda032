/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: /sys is made of the parts that programs read: devices and what points to
 * them.  There are no control groups.  What is in these parts, and in /proc, and tells of the host
 * what a machine need not know is covered by pillion-init (src/guest/init/cover.c): that takes 50
 * microseconds a mount, and bwrap ten times as long. */
#include "machine/kernel_files.h"

#include <stddef.h>

#include "agent/exposed.h"
#include "base/compiler.h"
#include "base/path.h"
#include "base/proc.h"

static const char *const parts_of_sys[] = {
	"/sys/block",   "/sys/bus",    "/sys/class",     "/sys/dev",
	"/sys/devices", "/sys/module", "/sys/kernel/mm", /* the size of huge pages */
};

void kernel_files_add(struct argv *a)
{
	argv_add_all(a, (const char *const[]){"--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run",
					      "--perms", "0755", "--dir", EXPOSED_RUN, "--dir",
					      EXPOSED_WHOLE, "--tmpfs", "/sys", "--perms", "0755",
					      "--dir", "/sys/kernel", NULL});
	for (size_t i = 0; i < ARRAY_SIZE(parts_of_sys); i++)
		if (path_exists(parts_of_sys[i]))
			argv_add_all(a, (const char *const[]){"--ro-bind", parts_of_sys[i],
							      parts_of_sys[i], NULL});
	argv_add_all(a, (const char *const[]){"--dir", "/sys/fs/cgroup", "--remount-ro", "/sys",
					      NULL});
}
