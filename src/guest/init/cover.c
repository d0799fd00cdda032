/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: nothing of /proc and /sys but the guest's own settings (net, user, IPC) can
 * be written by the guest's root: the owner of the files is the host's root, who has no id in
 * there.  What is covered here tells of the host what a machine need not know.
 *
 * A process inside that makes a pid namespace may mount a /proc of its own only if the kernel finds
 * one in the mount namespace of which nothing is covered.  There is one, in a folder that nobody
 * can look into: nested containers need it. */
#include "guest/init/cover.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "agent/exposed.h"
#include "base/path.h"

/* As container engines do; and the network cards, which are the host's. */
static const char *const covered[] = {
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

enum { FLAGS = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC };

static bool cover(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return errno == ENOENT; /* the host's kernel lacks it */
	if (S_ISDIR(st.st_mode))
		return mount("none", path, "tmpfs", FLAGS, "mode=0755") == 0;
	return mount("/dev/null", path, NULL, MS_BIND, NULL) == 0 &&
	       mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | FLAGS, NULL) == 0;
}

/* Terminals are numbered and counted for the whole host, which has 4096: the machine's have a
 * bound, and what the host keeps for itself stays so. */
static bool bound_terminals(void)
{
	return !path_exists("/dev/pts/ptmx") ||
	       mount(NULL, "/dev/pts", NULL, MS_REMOUNT | MS_NOSUID | MS_NOEXEC,
		     "mode=620,ptmxmode=666,max=1024") == 0;
}

static bool add_whole_proc(void)
{
	return mkdir(EXPOSED_WHOLE "/proc", 0555) == 0 &&
	       mount("proc", EXPOSED_WHOLE "/proc", "proc", FLAGS & ~MS_RDONLY, NULL) == 0 &&
	       mount("none", EXPOSED_WHOLE, "tmpfs", FLAGS, "mode=0000") == 0;
}

int cover_kernel_files(struct pil_err *err)
{
	if (path_exists(EXPOSED_WHOLE) && !add_whole_proc())
		return pil_err_set(err, errno, "mount %s", EXPOSED_WHOLE);
	if (!bound_terminals())
		return pil_err_set(err, errno, "bound the terminals of /dev/pts");
	for (size_t i = 0; i < ARRAY_SIZE(covered); i++)
		if (!cover(covered[i]))
			return pil_err_set(err, errno, "cover %s", covered[i]);
	return 0;
}
