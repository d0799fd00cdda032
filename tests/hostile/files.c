/* SPDX-License-Identifier: Apache-2.0
 *
 * files.c -- cases against what the host's kernel shows of itself in /proc, /sys and /dev.
 *
 * That a file can be opened for writing is enough; nothing is written.  Reads count when they say
 * something that is not blanked. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile.h"

static int write_path(const struct hostile_case *c)
{
	hostile_make_writable(c->arg);
	if (access(c->arg, F_OK) && errno == ENOENT)
		return strncmp(c->arg, "/sys/", 5) ? -ENOENT
						   : hostile_skip("the host has no such file");
	return hostile_open_write(c->arg);
}

static int read_path(const struct hostile_case *c)
{
	static char text[8192];
	int fd = open(c->arg, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int ret = hostile_errno(fd);

	if (fd < 0)
		return ret;
	ret = hostile_errno(read(fd, text, sizeof(text)));
	close(fd);
	return ret == 0 ? -ENODATA : ret;
}

/* Of the namespaces that a machine has to itself. */
static bool is_machines_own(const char *path)
{
	static const char *const own[] = {
		"/proc/sys/net/",
		"/proc/sys/user/",
		"/proc/sys/kernel/hostname",
		"/proc/sys/kernel/domainname",
		"/proc/sys/kernel/sem",
		"/proc/sys/kernel/shm",
		"/proc/sys/kernel/msg",
		"/proc/sys/kernel/auto_msgmni",
		"/proc/sys/kernel/ns_last_pid",
		"/proc/sys/kernel/pid_max",
		"/proc/sys/fs/mqueue/",
		"/proc/sys/fs/binfmt_misc/",
	};

	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (!strncmp(path, own[i], strlen(own[i])))
			return true;
	return false;
}

static void try_write(const char *path, int type, void *arg)
{
	int ret;

	const struct tally *t = arg;

	if (type != DT_REG || t->result >= 0 || is_machines_own(path))
		return;
	ret = hostile_open_write(path);
	if (ret != -ENOENT && ret != -ENODEV && ret != -ENXIO)
		tally_add(arg, ret, path);
}

static int sweep(const struct hostile_case *c)
{
	struct tally t = {c, SKIPPED};

	hostile_make_writable(c->arg);
	hostile_walk(c->arg, 8, try_write, &t);
	return tally_result(&t, -ENOENT);
}

/* Parameters of the kernel and of its modules. */
static int sweep_parameters(const struct hostile_case *c)
{
	struct tally t = {c, SKIPPED};
	char path[512];
	DIR *dir;
	const struct dirent *e;

	hostile_make_writable(c->arg);
	dir = opendir(c->arg);
	while (dir && (e = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s/%s", c->arg, e->d_name,
			 strstr(c->arg, "block") ? "queue" : "parameters");
		hostile_walk(path, 1, try_write, &t);
	}
	if (dir)
		closedir(dir);
	return tally_result(&t, SKIPPED);
}

static void sweep_irqs_one(const char *path, int type, void *arg)
{
	if (strstr(path, "smp_affinity"))
		try_write(path, type, arg);
}

static int sweep_irqs(const struct hostile_case *c)
{
	struct tally t = {c, SKIPPED};

	hostile_make_writable(c->arg);
	hostile_walk(c->arg, 2, sweep_irqs_one, &t);
	return tally_result(&t, -ENOENT);
}

static int kernel_log(const struct hostile_case *c)
{
	static char text[4096];
	int ret = klogctl((int)strtol(c->arg, NULL, 10), text, sizeof(text));

	return ret < 0 ? -errno : 0;
}

static int kernel_addresses(const struct hostile_case *c)
{
	FILE *f = fopen("/proc/kallsyms", "re");
	char line[256] = "";
	bool found;

	(void)c;
	if (!f)
		return -errno;
	found = fgets(line, sizeof(line), f) && fgets(line, sizeof(line), f) &&
		strtoull(line, NULL, 16);
	fclose(f);
	return found ? 0 : -ENODATA;
}

/* Where in the host's memory a page of ours is. */
static int page_frames(const struct hostile_case *c)
{
	volatile int here = 1;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;
	ssize_t n;

	(void)c;
	if (fd < 0)
		return -errno;
	n = pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)&here / 4096 * sizeof(entry)));
	close(fd);
	if (n != sizeof(entry))
		return n < 0 ? -errno : -ENODATA;
	return entry & ((1ull << 55) - 1) ? 0 : -EPERM;
}

static int make_node(const struct hostile_case *c)
{
	unsigned long major = strtoul(c->arg + 1, NULL, 10);
	unsigned long minor = strtoul(strchr(c->arg, ':') + 1, NULL, 10);
	int fd, ret;

	hostile_own_mounts();
	mkdir("/tmp/nodes", 0700);
	if (mount("none", "/tmp/nodes", "tmpfs", 0, NULL) && errno == EFAULT)
		return -errno;
	unlink("/tmp/nodes/node");
	if (mknod("/tmp/nodes/node", (c->arg[0] == 'b' ? S_IFBLK : S_IFCHR) | 0600,
		  makedev(major, minor)))
		return -errno;
	fd = open("/tmp/nodes/node", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ret = hostile_errno(fd);
	if (fd >= 0)
		close(fd);
	return ret;
}

/* The driver has put it into the tree, as an archive from elsewhere might. */
static int open_node(const struct hostile_case *c)
{
	if (access(c->arg, F_OK))
		return hostile_skip("the image has no such node");
	hostile_make_writable(c->arg); /* and without "nodev" */
	return hostile_open_write(c->arg);
}

static void try_device(const char *path, int type, void *arg)
{
	static const char *const usual = " null zero full random urandom tty ptmx console ";
	char word[300];

	if (type != DT_CHR && type != DT_BLK)
		return;
	if (!strncmp(path, "/dev/pts/", 9))
		return;
	snprintf(word, sizeof(word), " %s ", path + strlen("/dev/"));
	if (!strstr(usual, word))
		tally_add(arg, hostile_open_write(path), path);
}

static int devices_seen(const struct hostile_case *c)
{
	struct tally t = {c, SKIPPED};

	hostile_walk("/dev", 3, try_device, &t);
	return tally_result(&t, -ENODATA);
}

/* Runs @try where /proc is one that nothing covers, of a pid namespace of its own. */
static int in_fresh_proc(const struct hostile_case *c, int (*try)(const struct hostile_case *))
{
	int fds[2], ret = -EIO;
	pid_t child;

	if (pipe(fds))
		return -errno;
	child = fork();
	if (child == 0) {
		if (unshare(CLONE_NEWNS | CLONE_NEWPID))
			_exit(1);
		child = fork();
		if (child == 0) {
			ret = mount("proc", "/proc", "proc", 0, NULL) ? -ENOSYS : try(c);
			_exit(write(fds[1], &ret, sizeof(ret)) != sizeof(ret));
		}
		waitpid(child, NULL, 0);
		_exit(0);
	}
	close(fds[1]);
	if (read(fds[0], &ret, sizeof(ret)) != sizeof(ret))
		ret = -EIO;
	close(fds[0]);
	waitpid(child, NULL, 0);
	return ret;
}

static int fresh_write(const struct hostile_case *c)
{
	return in_fresh_proc(c, write_path);
}

static int fresh_read(const struct hostile_case *c)
{
	return in_fresh_proc(c, read_path);
}

static int fresh_sweep(const struct hostile_case *c)
{
	return in_fresh_proc(c, sweep);
}

static int fresh_sweep_irqs(const struct hostile_case *c)
{
	return in_fresh_proc(c, sweep_irqs);
}

static int fresh_addresses(const struct hostile_case *c)
{
	return in_fresh_proc(c, kernel_addresses);
}

#define NO_WRITE                                                                                   \
	{                                                                                          \
		EACCES, EPERM, EROFS, ENOENT                                                       \
	}
#define NO_READ                                                                                    \
	{                                                                                          \
		EACCES, EPERM, ENOENT, ENODATA, ENXIO                                              \
	}
#define NO_WRITE_OR_READ                                                                           \
	{                                                                                          \
		EACCES, EPERM, EROFS, ENOENT, ENODATA, ENXIO                                       \
	}
#define NO_NODE                                                                                    \
	{                                                                                          \
		EPERM, EACCES, ENOSYS                                                              \
	}
#define WRITE(name, path)                                                                          \
	{                                                                                          \
		"write_" name, ON_NS, write_path, NO_WRITE, path                                   \
	}
#define FRESH(name, function, path)                                                                \
	{                                                                                          \
		"fresh_" name, ON_NS, function, NO_WRITE_OR_READ, path                             \
	}
#define READ(name, path)                                                                           \
	{                                                                                          \
		"read_" name, ON_NS, read_path, NO_READ, path                                      \
	}

static const struct hostile_case cases[] = {
	WRITE("sysrq", "/proc/sysrq-trigger"),
	WRITE("core_pattern", "/proc/sys/kernel/core_pattern"),
	WRITE("modprobe", "/proc/sys/kernel/modprobe"),
	WRITE("panic", "/proc/sys/kernel/panic"),
	WRITE("aslr", "/proc/sys/kernel/randomize_va_space"),
	WRITE("threads_max", "/proc/sys/kernel/threads-max"),
	WRITE("overcommit", "/proc/sys/vm/overcommit_memory"),
	WRITE("drop_caches", "/proc/sys/vm/drop_caches"),
	WRITE("file_max", "/proc/sys/fs/file-max"),
	WRITE("suid_dumpable", "/proc/sys/fs/suid_dumpable"),
	WRITE("uevent_helper", "/sys/kernel/uevent_helper"),
	WRITE("huge_pages", "/sys/kernel/mm/transparent_hugepage/enabled"),
	WRITE("power_state", "/sys/power/state"),
	WRITE("wake_lock", "/sys/power/pm_async"),
	WRITE("cpu_online", "/sys/devices/system/cpu/cpu1/online"),
	WRITE("clocksource", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
	WRITE("profiling", "/sys/kernel/profiling"),
	WRITE("pci_rescan", "/sys/bus/pci/rescan"),
	WRITE("drivers_probe", "/sys/bus/platform/drivers_probe"),
	WRITE("binfmt", "/proc/sys/fs/binfmt_misc/register"),
	{"sweep_sysctl", ON_NS, sweep, NO_WRITE, "/proc/sys"},
	{"sweep_module_parameters", ON_NS, sweep_parameters, NO_WRITE, "/sys/module"},
	{"sweep_block_queues", ON_NS, sweep_parameters, NO_WRITE, "/sys/block"},
	{"sweep_sys_kernel", ON_NS, sweep, NO_WRITE, "/sys/kernel"},
	{"sweep_irqs", ON_NS, sweep_irqs, NO_WRITE, "/proc/irq"},
	FRESH("write_sysrq", fresh_write, "/proc/sysrq-trigger"),
	FRESH("write_core_pattern", fresh_write, "/proc/sys/kernel/core_pattern"),
	FRESH("write_modprobe", fresh_write, "/proc/sys/kernel/modprobe"),
	FRESH("write_binfmt", fresh_write, "/proc/sys/fs/binfmt_misc/register"),
	FRESH("sweep_sysctl", fresh_sweep, "/proc/sys"),
	FRESH("sweep_irqs", fresh_sweep_irqs, "/proc/irq"),
	FRESH("read_kcore", fresh_read, "/proc/kcore"),
	FRESH("read_kmsg", fresh_read, "/proc/kmsg"),
	FRESH("read_timer_list", fresh_read, "/proc/timer_list"),
	FRESH("read_slabinfo", fresh_read, "/proc/slabinfo"),
	FRESH("read_pageflags", fresh_read, "/proc/kpageflags"),
	FRESH("kernel_addresses", fresh_addresses, NULL),
	READ("kcore", "/proc/kcore"),
	READ("kmsg", "/dev/kmsg"),
	READ("proc_kmsg", "/proc/kmsg"),
	READ("mem", "/dev/mem"),
	READ("port", "/dev/port"),
	READ("kpageflags", "/proc/kpageflags"),
	READ("slabinfo", "/proc/slabinfo"),
	READ("vmallocinfo", "/proc/vmallocinfo"),
	READ("timer_list", "/proc/timer_list"),
	{"kernel_log_read", ON_NS, kernel_log, {EPERM, ENOSYS}, "3"},
	{"kernel_log_clear", ON_NS, kernel_log, {EPERM, ENOSYS}, "7"},
	{"kernel_addresses", ON_NS, kernel_addresses, NO_READ},
	{"page_frames", ON_NS, page_frames, NO_READ},
	{"node_of_disk", ON_NS, make_node, NO_NODE, "b254:0"},
	{"node_of_loop", ON_NS, make_node, NO_NODE, "b7:0"},
	{"node_of_memory", ON_NS, make_node, NO_NODE, "c1:1"},
	{"node_of_kmsg", ON_NS, make_node, NO_NODE, "c1:11"},
	{"node_of_fuse", ON_NS, make_node, NO_NODE, "c10:229"},
	{"node_of_loop_control", ON_NS, make_node, NO_NODE, "c10:237"},
	{"node_of_tun", ON_NS, make_node, NO_NODE, "c10:200"},
	{"node_of_kvm", ON_NS, make_node, NO_NODE, "c10:232"},
	{"node_in_image_disk", ON_NS, open_node, NO_NODE, "/image-disk"},
	{"node_in_image_kmsg", ON_NS, open_node, NO_NODE, "/image-kmsg"},
	{"node_in_share", ON_NS, open_node, NO_NODE, "/mnt/host/ro/kmsg"},
	{"devices_seen", ON_NS, devices_seen, {ENODATA, EACCES, EPERM}},
};

const struct hostile_family hostile_files = {cases, ARRAY_SIZE(cases)};
