/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: there are two user namespaces.  The outer one owns the distro's tree, makes
 * the mounts and the pid namespace; the supervisor starts us in it.  The inner one is the guest's:
 * its root has all capabilities over what belongs to it (network, IPC, host name, a copy of the
 * mounts), and none over what belongs to the outer one.  The kernel locks a mount that is copied
 * into a less privileged namespace: from inside, no flag of it can be cleared and it cannot be
 * unmounted.
 *
 * Both namespaces have the same ids, so a file has the same owner in both.  A process cannot map
 * ids for itself that are not its own: a child that stays outside does it, and ends before anything
 * of the guest's runs.
 *
 * The pid namespace and the cgroup namespace stay the outer one's.  So the guest's root cannot
 * mount the host's cgroup tree; that it cannot make a cgroup namespace of its own is one of the
 * limits.
 *
 * Limits of the kernel's are counted in each namespace up to the first one.  What is set in the
 * outer one binds the guest, and the guest cannot raise it.
 *
 * We were executed outside and are not dumpable.  Therefore the kernel lets nobody inside trace us
 * or take our descriptors, root included. */
#include "guest/init/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "guest/init/cover.h"

/* ---- limits ---- */

/* Rootless, the kernel counts all of these for the user of the host, whose other programs have the
 * same id.  The guest may have half of what the user namespace outside has. */
static const int halved[] = {RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE};

static void halve_limits(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(halved); i++) {
		struct rlimit limit;

		if (getrlimit(halved[i], &limit))
			continue;
		limit.rlim_max /= 2;
		if (limit.rlim_cur > limit.rlim_max)
			limit.rlim_cur = limit.rlim_max;
		if (setrlimit(halved[i], &limit))
			log_warn("set limit %d: %s", halved[i], strerror(errno));
	}
}

/* Of the guest, in /proc/sys/user.  A file that a kernel does not have is no fault.  Where the user
 * outside has a limit of his own, the guest has at most a part of it: half, and of inotify
 * instances, of which there are 128 by default, a quarter. */
static const struct {
	const char *name;
	unsigned max;
	const char *users; /* his limit; NULL: none that a machine comes near */
	unsigned part;
} counts[] = {
	{"max_cgroup_namespaces", 0, NULL, 0}, /* in one, it could mount the cgroups it is in */
	{"max_fanotify_groups", 64, "/proc/sys/fs/fanotify/max_user_groups", 2},
	{"max_fanotify_marks", 65536, "/proc/sys/fs/fanotify/max_user_marks", 2},
	{"max_inotify_instances", 512, "/proc/sys/fs/inotify/max_user_instances", 4},
	{"max_inotify_watches", 65536, "/proc/sys/fs/inotify/max_user_watches", 2},
	{"max_ipc_namespaces", 256, NULL, 0},
	{"max_mnt_namespaces", 512, NULL, 0},
	{"max_net_namespaces", 128, NULL, 0},
	{"max_pid_namespaces", 256, NULL, 0},
	{"max_time_namespaces", 256, NULL, 0},
	{"max_user_namespaces", 512, NULL, 0},
	{"max_uts_namespaces", 256, NULL, 0},
};

static unsigned max_of(size_t i)
{
	_auto_free char *text = NULL;
	uint64_t users;

	if (!counts[i].users || pil_read_file(counts[i].users, 32, &text) <= 0)
		return counts[i].max;
	text[strcspn(text, "\n")] = '\0';
	if (!str_to_u64(text, UINT32_MAX, &users) || users / counts[i].part > counts[i].max)
		return counts[i].max;
	return (unsigned)users / counts[i].part;
}

static int limit_counts(struct pil_err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		_auto_free char *path = str_printf("/proc/sys/user/%s", counts[i].name);
		_auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

		if (fd < 0 && errno == ENOENT)
			continue;
		if (fd < 0 || dprintf(fd, "%u\n", max_of(i)) < 0)
			return pil_err_set(err, errno, "limit the sandbox: write %s", path);
	}
	return 0;
}

/* ---- the namespace ---- */

/* The ids of our namespace, each as itself, extent by extent: the kernel takes no extent of a
 * child's that reaches into two of its parent's. */
static int identity_map(const char *file, char *map, size_t size)
{
	_auto_free char *path = str_printf("/proc/self/%s", file);
	_auto_free char *text = NULL;
	char *save = NULL;
	size_t len = 0;

	if (pil_read_file(path, 1 << 16, &text) < 0)
		return -errno;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		unsigned first, outside, count;

		if (sscanf(line, "%u %u %u", &first, &outside, &count) != 3 || size - len < 40)
			return -EINVAL;
		len += (size_t)snprintf(map + len, size - len, "%u %u %u\n", first, first, count);
	}
	return (int)len;
}

static int write_identity_map(pid_t pid, const char *file)
{
	_auto_free char *path = str_printf("/proc/%d/%s", pid, file);
	char map[1024];
	int len = identity_map(file, map, sizeof(map));
	_auto_fd int fd = len > 0 ? open(path, O_WRONLY | O_CLOEXEC) : -1;

	if (len <= 0)
		return len ? len : -EINVAL;
	return fd < 0 || write(fd, map, (size_t)len) != len ? -errno : 0;
}

/* The child that stays outside: maps our ids once we are in there. */
static PIL_NORETURN void map_from_outside(int entered_fd)
{
	pid_t parent = getppid();
	char c;
	int ret;

	if (pil_read_all(entered_fd, &c, 1))
		_exit(ECANCELED); /* the parent says why */
	ret = write_identity_map(parent, "uid_map");
	if (!ret)
		ret = write_identity_map(parent, "gid_map");
	_exit(-ret);
}

static int enter(struct pil_err *err)
{
	int entered[2], status = 0, code = 0;
	pid_t mapper;

	if (pipe2(entered, O_CLOEXEC))
		return pil_err_set(err, errno, "enter the sandbox's user namespace");
	mapper = fork();
	if (mapper == 0) {
		close(entered[1]);
		map_from_outside(entered[0]);
	}
	close(entered[0]);
	if (mapper < 0 ||
	    unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS))
		code = errno;
	else if (pil_write_all(entered[1], "", 1))
		code = EPIPE;
	close(entered[1]);
	if (mapper > 0 && waitpid(mapper, &status, 0) != mapper)
		return pil_err_set(err, errno, "wait for the mapper of ids");
	if (!code && status)
		code = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
	return code ? pil_err_set(err, code, "enter the sandbox's user namespace") : 0;
}

/* A new user namespace begins with all of them.  These are of no use in one; a fault in the kernel
 * may need them. */
static const int dropped_caps[] = {CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT, CAP_SYS_TIME,
				   CAP_SYSLOG,     CAP_BPF,       CAP_PERFMON};

static int drop_caps(struct pil_err *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data))
		return pil_err_set(err, errno, "read capabilities");
	for (size_t i = 0; i < ARRAY_SIZE(dropped_caps); i++) {
		int cap = dropped_caps[i];
		uint32_t bit = ~(1u << (cap % 32));

		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) && errno != EINVAL)
			return pil_err_set(err, errno, "drop capability %d", cap);
		data[cap / 32].effective &= bit;
		data[cap / 32].permitted &= bit;
		data[cap / 32].inheritable &= bit;
	}
	return syscall(SYS_capset, &header, data) ? pil_err_set(err, errno, "drop capabilities")
						  : 0;
}

/* Queues belong to the namespace that we have entered, and so must who mounts them. */
static int show_queues(struct pil_err *err)
{
	if (mount("mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) &&
	    errno != ENODEV) /* a kernel without them */
		return pil_err_set(err, errno, "mount /dev/mqueue");
	return 0;
}

int confine_enter(struct pil_err *err)
{
	int ret;

	halve_limits();
	ret = limit_counts(err);
	if (!ret)
		ret = cover_kernel_files(err);
	if (!ret)
		ret = enter(err);
	if (!ret)
		ret = show_queues(err);
	if (!ret)
		ret = drop_caps(err);
	if (!ret && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		ret = pil_err_set(err, errno, "keep others from tracing pid 1");
	return ret;
}
