/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the list below is what may be called; all else fails with ENOSYS, which
 * libraries take for an old kernel and work around.  Vendors' libraries cannot be asked what they
 * need, so the list has the width of the one that container engines use by default, in which all
 * of these vendors' stacks are run every day (compilers of shaders map memory executable, OpenMP
 * sets affinities, AMX asks arch_prctl, drivers ioctl), minus what those engines allow for whole
 * systems and no device needs: mounts, other users' processes, System V IPC, time, io_uring.
 *
 * Three calls are looked into: clone() may not make namespaces (clone3(), whose flags a filter
 * cannot see, is absent, and glibc falls back), socket() makes AF_UNIX and the netlink family by
 * which drivers hear of devices, ioctl() may not push characters into a terminal. */
#include "broker/filter.h"

#include <errno.h>
#include <linux/netlink.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

#define NEW_NAMESPACES                                                                             \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |             \
	 CLONE_NEWPID | CLONE_NEWNET)

/* One line per purpose, names separated by blanks. */
static const char *const allowed[] = {
	/* files */
	"access chdir chmod close close_range copy_file_range creat dup dup2 dup3",
	"faccessat faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fcntl fdatasync",
	"fgetxattr flock fstat fstatfs fsync ftruncate getcwd getdents getdents64",
	"getxattr lgetxattr link linkat listxattr lseek lstat mkdir mkdirat newfstatat",
	"open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2",
	"read readahead readlink readlinkat readv rename renameat renameat2 rmdir",
	"sendfile splice stat statfs statx symlink symlinkat sync_file_range tee truncate",
	"umask unlink unlinkat utime utimensat utimes write writev",
	/* memory */
	"brk get_mempolicy madvise mbind memfd_create mincore mlock mlock2 mlockall mmap",
	"move_pages mprotect mremap msync munlock munlockall munmap pkey_alloc pkey_free",
	"pkey_mprotect remap_file_pages set_mempolicy set_mempolicy_home_node",
	/* threads and processes */
	"arch_prctl capget capset execve exit exit_group fork futex futex_requeue",
	"futex_wait futex_waitv futex_wake get_robust_list getcpu getpgid getpgrp getpid",
	"getppid getpriority getrlimit getrusage getsid gettid membarrier pidfd_open",
	"pidfd_send_signal prctl prlimit64 rseq sched_get_priority_max",
	"sched_get_priority_min sched_getaffinity sched_getattr sched_getparam",
	"sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr",
	"sched_setparam sched_setscheduler sched_yield set_robust_list set_tid_address",
	"setpgid setpriority setrlimit setsid vfork wait4 waitid",
	/* who one is: an executor started as root drops to a user of its own */
	"getegid geteuid getgid getgroups getresgid getresuid getuid setgid setgroups",
	"setregid setresgid setresuid setreuid setuid",
	/* signals */
	"alarm kill pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask",
	"rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo",
	"sigaltstack signalfd signalfd4 tgkill tkill",
	/* waiting and time */
	"clock_getres clock_gettime clock_nanosleep epoll_create epoll_create1 epoll_ctl",
	"epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 getitimer gettimeofday",
	"inotify_add_watch inotify_init inotify_init1 inotify_rm_watch nanosleep poll",
	"ppoll pselect6 select setitimer time timer_create timer_delete timer_getoverrun",
	"timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times",
	/* local sockets */
	"accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom",
	"recvmmsg recvmsg sendmmsg sendmsg sendto setsockopt shutdown socketpair",
	/* the rest */
	"getrandom sysinfo uname",
};

static char *next_name(const char **line, char *name, size_t size)
{
	size_t len = strcspn(*line, " ");

	if (len == 0 || len >= size)
		return NULL;
	memcpy(name, *line, len);
	name[len] = '\0';
	*line += len + ((*line)[len] == ' ');
	return name;
}

bool filter_allows(const char *wanted)
{
	char name[32];

	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		for (const char *line = allowed[i]; next_name(&line, name, sizeof(name));)
			if (!strcmp(name, wanted))
				return true;
	return false;
}

static int add_names(scmp_filter_ctx filter)
{
	char name[32];
	int ret = 0;

	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		for (const char *line = allowed[i]; !ret && next_name(&line, name, sizeof(name));) {
			int nr = seccomp_syscall_resolve_name(name);

			if (nr >= 0) /* not on this architecture, or newer than libseccomp */
				ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, nr, 0);
		}
	return ret;
}

static int add_looked_into(scmp_filter_ctx filter)
{
	int ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				   SCMP_A0(SCMP_CMP_MASKED_EQ, NEW_NAMESPACES, 0));

	if (!ret)
		ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				       SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	if (!ret)
		ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2,
				       SCMP_A0(SCMP_CMP_EQ, AF_NETLINK),
				       SCMP_A2(SCMP_CMP_EQ, NETLINK_KOBJECT_UEVENT));
	if (!ret)
		ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				       SCMP_A1_32(SCMP_CMP_NE, TIOCSTI));
	return ret;
}

int filter_create(struct pil_err *err)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	_auto_fd int fd = memfd_create("seccomp", MFD_CLOEXEC);
	int ret = 0;

	if (fd < 0 || !filter)
		ret = -(filter ? errno : ENOMEM);
	if (!ret)
		ret = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree */
	if (!ret)
		ret = add_names(filter);
	if (!ret)
		ret = add_looked_into(filter);
	if (!ret)
		ret = seccomp_export_bpf(filter, fd);
	if (filter)
		seccomp_release(filter);
	if (!ret && lseek(fd, 0, SEEK_SET) < 0)
		ret = -errno;
	if (ret)
		return pil_err_set(err, -ret, "make the executor's seccomp filter");
	return pil_take_fd(&fd);
}
