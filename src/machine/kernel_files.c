/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: nothing of /proc and /sys but the guest's own settings (net, user) can be
 * written by the guest's root: the owner of the files is the host's root, who has no id in there.
 * What is hidden here tells of the host what a machine need not know.
 *
 * /proc is the guest's, with some files covered.  A process inside that makes a pid namespace may
 * mount a /proc of its own only if the kernel finds one in the mount namespace of which nothing is
 * covered.  There is one, in a folder that nobody can look into: nested containers need it.
 *
 * /sys is made of the parts that programs read: devices and what points to them.  The network cards
 * in there are the host's, so they are covered, too.  There are no control groups. */
#include "kernel_files.h"

#include <stddef.h>
#include <sys/stat.h>

#include "compiler.h"
#include "path.h"
#include "proc.h"

#define WHOLE_PROC "/run/pillion/whole"

/* As container engines do.  What the host's kernel lacks is left out. */
static const char *const hidden[] = {
	"/proc/acpi",
	"/proc/asound",
	"/proc/driver",
	"/proc/fs",
	"/proc/interrupts",
	"/proc/kallsyms",
	"/proc/kcore",
	"/proc/key-users",
	"/proc/keys",
	"/proc/kmsg",
	"/proc/latency_stats",
	"/proc/mtrr",
	"/proc/pressure",
	"/proc/sched_debug",
	"/proc/scsi",
	"/proc/sysrq-trigger",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/sys/class/net",
	"/sys/class/powercap",
	"/sys/devices/virtual/dmi",
	"/sys/devices/virtual/net",
	"/sys/devices/virtual/powercap",
};

static const char *const parts_of_sys[] = {
	"/sys/block",   "/sys/bus",    "/sys/class",     "/sys/dev",
	"/sys/devices", "/sys/module", "/sys/kernel/mm", /* the size of huge pages */
};

static void hide(struct argv *a, const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return;
	if (S_ISDIR(st.st_mode))
		argv_add_all(a, (const char *const[]){"--tmpfs", path, "--remount-ro", path, NULL});
	else
		argv_add_all(a, (const char *const[]){"--ro-bind", "/dev/null", path, NULL});
}

void kernel_files_add(struct argv *a)
{
	argv_add_all(a, (const char *const[]){"--dev",
					      "/dev",
					      "--proc",
					      "/proc",
					      "--perms",
					      "0755",
					      "--tmpfs",
					      "/run",
					      "--perms",
					      "0755",
					      "--dir",
					      "/run/pillion",
					      "--proc",
					      WHOLE_PROC "/proc",
					      "--perms",
					      "0000",
					      "--tmpfs",
					      WHOLE_PROC,
					      "--remount-ro",
					      WHOLE_PROC,
					      "--tmpfs",
					      "/sys",
					      NULL});
	for (size_t i = 0; i < ARRAY_SIZE(parts_of_sys); i++)
		if (path_exists(parts_of_sys[i]))
			argv_add_all(a, (const char *const[]){"--ro-bind", parts_of_sys[i],
							      parts_of_sys[i], NULL});
	argv_add_all(a, (const char *const[]){"--dir", "/sys/fs/cgroup", "--remount-ro", "/sys",
					      NULL});
	for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
		hide(a, hidden[i]);
}
