/* SPDX-License-Identifier: Apache-2.0
 *
 * calls.c -- cases of system calls that concern the whole computer.
 *
 * Each asks for something that changes nothing even where it is allowed: the time that it is, a
 * module that is none.  An error that comes after the check of the right counts as allowed. */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/fanotify.h>
#include <linux/perf_event.h>
#include <linux/quota.h>
#include <linux/reboot.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#include "hostile.h"

/* @past: an errno that says that the right was there. */
static int checked(long result, int past)
{
	return result < 0 && errno == past ? 0 : hostile_errno(result);
}

static int load_module(const struct hostile_case *c)
{
	(void)c;
	return checked(syscall(SYS_init_module, "none", 4, ""), ENOEXEC);
}

static int load_module_file(const struct hostile_case *c)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	(void)c;
	return checked(syscall(SYS_finit_module, fd, "", 0), ENOEXEC);
}

static int unload_module(const struct hostile_case *c)
{
	(void)c;
	return checked(syscall(SYS_delete_module, "pillion_hostile_none", O_NONBLOCK), ENOENT);
}

static int kexec(const struct hostile_case *c)
{
	(void)c;
	return hostile_errno(syscall(SYS_kexec_load, 0, 0, NULL, 0));
}

static int kexec_file(const struct hostile_case *c)
{
	(void)c;
	return checked(syscall(SYS_kexec_file_load, -1, -1, 0, NULL, 0), EBADF);
}

/* Means nothing in a pid namespace, once it is allowed. */
static int reboot_computer(const struct hostile_case *c)
{
	(void)c;
	return checked(syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
			       LINUX_REBOOT_CMD_CAD_OFF, NULL),
		       EINVAL);
}

static int swap_on(const struct hostile_case *c)
{
	(void)c;
	return checked(swapon("/pillion-hostile-none", 0), ENOENT);
}

static int swap_off(const struct hostile_case *c)
{
	(void)c;
	return checked(swapoff("/pillion-hostile-none"), ENOENT);
}

static int account(const struct hostile_case *c)
{
	(void)c;
	return hostile_errno(acct(NULL));
}

static int quota(const struct hostile_case *c)
{
	struct if_dqinfo info = {0};
	int fd = open("/", O_RDONLY | O_CLOEXEC);

	(void)c;
	return checked(syscall(SYS_quotactl_fd, fd, QCMD(Q_SETINFO, USRQUOTA), 0, &info), ESRCH);
}

static int set_time(const struct hostile_case *c)
{
	struct timeval now;

	(void)c;
	gettimeofday(&now, NULL);
	return hostile_errno(settimeofday(&now, NULL));
}

static int set_clock(const struct hostile_case *c)
{
	struct timespec now;

	(void)c;
	clock_gettime(CLOCK_REALTIME, &now);
	return hostile_errno(clock_settime(CLOCK_REALTIME, &now));
}

static int adjust_clock(const struct hostile_case *c)
{
	struct timex t = {0};

	(void)c;
	if (adjtimex(&t) < 0)
		return -errno;
	t.modes = ADJ_TICK; /* to what it is */
	return hostile_errno(adjtimex(&t));
}

static int real_time(const struct hostile_case *c)
{
	struct sched_param p = {.sched_priority = 1};

	return hostile_errno(sched_setscheduler(0, (int)strtol(c->arg, NULL, 10), &p));
}

static int deadline(const struct hostile_case *c)
{
	struct {
		unsigned size, policy;
		unsigned long long flags;
		int nice;
		unsigned priority;
		unsigned long long runtime, deadline, period;
	} a = {48, 6, 0, 0, 0, 1000000, 100000000, 100000000};

	(void)c;
	return hostile_errno(syscall(SYS_sched_setattr, 0, &a, 0));
}

static int io_real_time(const struct hostile_case *c)
{
	(void)c;
	return hostile_errno(syscall(SYS_ioprio_set, 1, 0, 1 << 13));
}

static int below_nice(const struct hostile_case *c)
{
	(void)c;
	return hostile_errno(setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) - 5));
}

static int oom_score(const struct hostile_case *c)
{
	FILE *f = fopen("/proc/self/oom_score_adj", "r+e");
	int now = 0, ret;

	(void)c;
	if (!f)
		return -errno;
	ret = fscanf(f, "%d", &now) == 1 ? 0 : -EIO;
	rewind(f);
	if (!ret && (fprintf(f, "%d\n", now - 100) < 0 || fflush(f)))
		ret = -errno;
	fclose(f);
	return ret;
}

static int lock_memory(const struct hostile_case *c)
{
	struct rlimit limit;
	size_t bytes = 64 << 20;
	void *p;

	(void)c;
	if (getrlimit(RLIMIT_MEMLOCK, &limit))
		return -errno;
	if (limit.rlim_max != RLIM_INFINITY)
		bytes += limit.rlim_max;
	else
		return 0;
	p = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? -errno : hostile_errno(mlock(p, bytes));
}

static int raise_limit(const struct hostile_case *c)
{
	int which = (int)strtol(c->arg, NULL, 10);
	struct rlimit limit;

	if (getrlimit((__rlimit_resource_t)which, &limit))
		return -errno;
	if (limit.rlim_max == RLIM_INFINITY)
		return 0;
	limit.rlim_max++;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit((__rlimit_resource_t)which, &limit))
		return -errno;
	if (getrlimit((__rlimit_resource_t)which, &limit))
		return -errno;
	return limit.rlim_max == limit.rlim_cur && which == RLIMIT_CORE && limit.rlim_max == 1
		       ? -EPERM /* it was said to be set, and is not */
		       : 0;
}

/* With a limit of 1 the kernel starts no program of the host's for a core; with 0 it does. */
static int core_for_host(const struct hostile_case *c)
{
	struct rlimit none = {0, 0}, now;

	(void)c;
	if (setrlimit(RLIMIT_CORE, &none) || getrlimit(RLIMIT_CORE, &now))
		return -errno;
	return now.rlim_cur == 1 && now.rlim_max == 1 ? -EPERM : 0;
}

static int bpf_program(const struct hostile_case *c)
{
	struct bpf_insn code[] = {{.code = 0xb7, .dst_reg = 0}, {.code = 0x95}};
	union bpf_attr a = {.prog_type = (unsigned)strtoul(c->arg, NULL, 10),
			    .insns = (unsigned long)code,
			    .insn_cnt = 2,
			    .license = (unsigned long)"GPL"};

	return hostile_errno(syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof(a)));
}

static int bpf_walk(const struct hostile_case *c)
{
	union bpf_attr a = {0};

	(void)c;
	return checked(syscall(SYS_bpf, BPF_PROG_GET_NEXT_ID, &a, sizeof(a)), ENOENT);
}

static int perf(int pid, int cpu, bool no_kernel)
{
	struct perf_event_attr a = {.type = PERF_TYPE_SOFTWARE,
				    .size = sizeof(a),
				    .config = PERF_COUNT_SW_CPU_CLOCK,
				    .exclude_kernel = no_kernel};

	return hostile_errno(syscall(SYS_perf_event_open, &a, pid, cpu, -1, 0));
}

static int perf_of_cpu(const struct hostile_case *c)
{
	(void)c;
	return perf(-1, 0, true);
}

static int perf_of_kernel(const struct hostile_case *c)
{
	(void)c;
	return perf(0, -1, false);
}

static int fault_handler(const struct hostile_case *c)
{
	(void)c;
	return hostile_errno(syscall(SYS_userfaultfd, O_CLOEXEC));
}

static int ports(const struct hostile_case *c)
{
	(void)c;
	return hostile_errno(ioperm(0x80, 1, 1));
}

static int all_ports(const struct hostile_case *c)
{
	(void)c;
	return hostile_errno(iopl(3));
}

static int hang_up(const struct hostile_case *c)
{
	(void)c;
	setsid(); /* not the terminal of whoever runs the self-test */
	return hostile_errno(vhangup());
}

/* Sees every file that is opened on the host's disk. */
static int watch_disk(const struct hostile_case *c)
{
	int fd = (int)syscall(SYS_fanotify_init, FAN_CLASS_NOTIF | FAN_REPORT_FID, O_RDONLY);

	(void)c;
	if (fd < 0)
		return -errno;
	return hostile_errno(syscall(SYS_fanotify_mark, fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM,
				     FAN_OPEN, AT_FDCWD, "/"));
}

static int permission_events(const struct hostile_case *c)
{
	(void)c;
	return hostile_errno(syscall(SYS_fanotify_init, FAN_CLASS_CONTENT, O_RDONLY));
}

#define NOT_ALLOWED                                                                                \
	{                                                                                          \
		EPERM, EACCES, ENOSYS                                                              \
	}
#define CALL(name, function)                                                                       \
	{                                                                                          \
		name, ON_NS, function, NOT_ALLOWED                                                 \
	}

static const struct hostile_case cases[] = {
	CALL("load_module", load_module),
	CALL("load_module_file", load_module_file),
	CALL("unload_module", unload_module),
	CALL("kexec", kexec),
	CALL("kexec_file", kexec_file),
	CALL("reboot", reboot_computer),
	CALL("swap_on", swap_on),
	CALL("swap_off", swap_off),
	CALL("account", account),
	CALL("quota", quota),
	CALL("set_time", set_time),
	CALL("set_clock", set_clock),
	CALL("adjust_clock", adjust_clock),
	{"real_time_fifo", ON_NS, real_time, NOT_ALLOWED, "1"},
	{"real_time_rr", ON_NS, real_time, NOT_ALLOWED, "2"},
	CALL("real_time_deadline", deadline),
	CALL("real_time_io", io_real_time),
	CALL("below_nice", below_nice),
	CALL("oom_score", oom_score),
	{"lock_memory", ON_NS, lock_memory, {ENOMEM, EPERM, EAGAIN}},
	{"raise_files", ON_NS, raise_limit, NOT_ALLOWED, "7"},
	{"raise_processes", ON_NS, raise_limit, NOT_ALLOWED, "6"},
	{"raise_locked", ON_NS, raise_limit, NOT_ALLOWED, "8"},
	CALL("core_for_host", core_for_host),
	{"raise_core", ON_NS, raise_limit, NOT_ALLOWED, "4"},
	{"bpf_filter", ON_NS, bpf_program, NOT_ALLOWED, "1"},
	{"bpf_probe", ON_NS, bpf_program, NOT_ALLOWED, "2"},
	CALL("bpf_walk", bpf_walk),
	CALL("perf_of_cpu", perf_of_cpu),
	CALL("perf_of_kernel", perf_of_kernel),
	CALL("fault_handler", fault_handler),
	CALL("ports", ports),
	CALL("all_ports", all_ports),
	CALL("hang_up", hang_up),
	CALL("watch_disk", watch_disk),
	CALL("permission_events", permission_events),
};

const struct hostile_family hostile_calls = {cases, ARRAY_SIZE(cases)};
