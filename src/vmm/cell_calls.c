/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: what may be called is a table; the filter is made from it without a library,
 * because that takes longer than booting may.  Everything else fails with ENOSYS, which is what a
 * libc newer than this list expects of an old kernel.  Filters add up: a vCPU's thread has both.
 *
 * A rule may look at one argument: at the bits of it that must be zero, or at its value. */
#include "cell.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum rule_kind { ALLOW, IF_EQUAL, IF_ZERO_BITS, IF_SET_BITS, IF_OWN_PID };

struct rule {
	int nr;
	enum rule_kind kind;
	unsigned arg;
	uint32_t value;
};

static const struct rule machine_rules[] = {
	/* waiting, doorbells */
	{SYS_epoll_wait},
	{SYS_epoll_pwait},
	{SYS_epoll_ctl},
	{SYS_eventfd2},
	{SYS_futex},
	{SYS_poll},
	{SYS_ppoll},
	{SYS_clock_gettime},
	{SYS_clock_nanosleep},
	{SYS_restart_syscall},
	{SYS_sched_yield},
	{SYS_alarm},
	{SYS_alarm},
	/* disks, console, frames */
	{SYS_read},
	{SYS_write},
	{SYS_readv},
	{SYS_writev},
	{SYS_pread64},
	{SYS_pwrite64},
	{SYS_preadv},
	{SYS_pwritev},
	{SYS_preadv2},
	{SYS_pwritev2},
	{SYS_fallocate},
	{SYS_fdatasync},
	{SYS_fsync},
	{SYS_lseek},
	{SYS_fstat},
	{SYS_fcntl},
	{SYS_close},
	{SYS_getrandom},
	/* sockets */
	{SYS_socket, IF_EQUAL, 0, AF_UNIX},
	{SYS_connect},
	{SYS_accept4},
	{SYS_sendto},
	{SYS_sendmsg},
	{SYS_recvfrom},
	{SYS_recvmsg},
	{SYS_shutdown},
	{SYS_getsockopt},
	{SYS_setsockopt},
	/* memory: none of it executable */
	{SYS_mmap, IF_ZERO_BITS, 2, PROT_EXEC},
	{SYS_mprotect, IF_ZERO_BITS, 2, PROT_EXEC},
	{SYS_munmap},
	{SYS_mremap},
	{SYS_madvise},
	{SYS_brk},
	/* threads and their end; clone3(), whose flags cannot be seen, is absent */
	{SYS_clone, IF_SET_BITS, 0, CLONE_THREAD},
	{SYS_set_robust_list},
	{SYS_rseq},
	{SYS_rt_sigprocmask},
	{SYS_rt_sigaction},
	{SYS_rt_sigreturn},
	{SYS_sigaltstack},
	{SYS_gettid},
	{SYS_getpid},
	{SYS_tgkill, IF_OWN_PID, 0},
	{SYS_exit},
	{SYS_exit_group},
	{SYS_prctl, IF_EQUAL, 0, PR_SET_NAME},
	{SYS_seccomp},
	{SYS_prctl, IF_EQUAL, 0, PR_SET_SECCOMP},
	/* the machine; disks that are block devices */
	{SYS_ioctl, IF_EQUAL, 1, KVM_RUN},
	{SYS_ioctl, IF_EQUAL, 1, KVM_SIGNAL_MSI},
	{SYS_ioctl, IF_EQUAL, 1, (uint32_t)KVM_IOEVENTFD},
	{SYS_ioctl, IF_EQUAL, 1, (uint32_t)KVM_GET_REGS},
	{SYS_ioctl, IF_EQUAL, 1, BLKDISCARD},
	{SYS_ioctl, IF_EQUAL, 1, BLKZEROOUT},
};

static const struct rule vcpu_rules[] = {
	{SYS_ioctl, IF_EQUAL, 1, KVM_RUN},
	{SYS_ioctl, IF_EQUAL, 1, KVM_SIGNAL_MSI},
	{SYS_ioctl, IF_EQUAL, 1, (uint32_t)KVM_GET_REGS},
	{SYS_ioctl, IF_EQUAL, 1, (uint32_t)KVM_IOEVENTFD},
	{SYS_write},
	{SYS_futex},
	{SYS_clock_gettime},
	{SYS_restart_syscall},
	{SYS_sched_yield},
	{SYS_rt_sigreturn},
	{SYS_rt_sigprocmask},
	{SYS_madvise},
	{SYS_munmap},
	{SYS_sigaltstack},
	{SYS_gettid},
	{SYS_getpid},
	{SYS_exit},
	{SYS_exit_group},
	{SYS_mmap, IF_ZERO_BITS, 2, PROT_EXEC},
	{SYS_mprotect, IF_ZERO_BITS, 2, PROT_EXEC},
};

enum { MAX_CODE = 512 };

struct program {
	struct sock_filter code[MAX_CODE];
	unsigned short n;
};

static void put(struct program *p, struct sock_filter op)
{
	if (p->n < MAX_CODE)
		p->code[p->n++] = op;
}

static void load(struct program *p, size_t off)
{
	put(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)off));
}

/* If the word loaded last passes the test, goes on; else skips @skip instructions. */
static void test(struct program *p, uint16_t op, uint32_t value, bool wanted, uint8_t skip)
{
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | op | BPF_K, value, wanted ? 0 : skip,
					    wanted ? skip : 0));
}

static void give(struct program *p, uint32_t action)
{
	put(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

static void add_rule(struct program *p, const struct rule *r)
{
	test(p, BPF_JEQ, (uint32_t)r->nr, true, r->kind == ALLOW ? 1 : 4);
	if (r->kind != ALLOW) {
		load(p, offsetof(struct seccomp_data, args) + r->arg * sizeof(uint64_t));
		if (r->kind == IF_EQUAL || r->kind == IF_OWN_PID)
			test(p, BPF_JEQ, r->kind == IF_EQUAL ? r->value : (uint32_t)getpid(), true,
			     1);
		else
			test(p, BPF_JSET, r->value, r->kind == IF_SET_BITS, 1);
	}
	give(p, SECCOMP_RET_ALLOW);
	if (r->kind != ALLOW) /* the number again, for the rules that follow */
		load(p, offsetof(struct seccomp_data, nr));
}

static int install(const struct rule *rules, size_t n)
{
	struct program p = {0};
	struct sock_fprog fprog = {.filter = p.code};

	load(&p, offsetof(struct seccomp_data, arch));
	test(&p, BPF_JEQ, AUDIT_ARCH_X86_64, false, 1);
	give(&p, SECCOMP_RET_KILL_PROCESS);
	load(&p, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < n; i++)
		add_rule(&p, &rules[i]);
	give(&p, SECCOMP_RET_ERRNO | ENOSYS);
	if (p.n == MAX_CODE)
		return -E2BIG;
	fprog.len = p.n;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &fprog) ? -errno : 0;
}

int cell_lock(struct pil_err *err)
{
	int ret = install(machine_rules, ARRAY_SIZE(machine_rules));

	return ret ? pil_err_set(err, -ret, "filter system calls") : 0;
}

int cell_lock_vcpu(void)
{
	return install(vcpu_rules, ARRAY_SIZE(vcpu_rules));
}
