/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: what may be called is a table, which the build makes of the #syscalls notes
 * beside the functions that call (make_rules.py); the filter is made from it without a library,
 * because that takes longer than booting may.  Everything else fails with ENOSYS, which is what a
 * libc newer than this list expects of an old kernel.  Filters add up: the thread of a vCPU or of a
 * disk has its own on top of the process's.
 *
 * A rule may look at one argument: at the bits of it that must be zero, or at its value.
 *
 * What the C library calls for everybody: memory, none of it executable; locks; the end.
 *   #syscalls vcpu disk: mmap(2!PROT_EXEC) mprotect(2!PROT_EXEC) munmap madvise futex
 *   #syscalls vcpu disk: clock_gettime restart_syscall sched_yield rt_sigreturn rt_sigprocmask
 *   #syscalls vcpu disk: sigaltstack gettid getpid exit exit_group
 *   #syscalls: brk mremap clock_nanosleep ppoll epoll_pwait fstat writev rt_sigaction
 *   #syscalls: tgkill(0=pid)
 *
 * What makes threads; clone3(), whose flags cannot be seen, is absent:
 *   #syscalls disk: clone(0&CLONE_THREAD) set_robust_list rseq
 *   #syscalls: prctl(0=PR_SET_NAME) */
#include "vmm/jail.h"

#include <errno.h>
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

#include "vmm/arch.h"
#include "vmm/jail_rules.h"

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

/* #syscalls disk: seccomp prctl(0=PR_SET_SECCOMP) */
static int install(const struct rule *rules, size_t n)
{
	struct program p = {0};
	struct sock_fprog fprog = {.filter = p.code};

	load(&p, offsetof(struct seccomp_data, arch));
	test(&p, BPF_JEQ, arch_audit, false, 1);
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

int jail_lock(struct pil_err *err)
{
	int ret = install(machine_rules, ARRAY_SIZE(machine_rules));

	return ret ? pil_err_set(err, -ret, "filter system calls") : 0;
}

int jail_lock_vcpu(void)
{
	return install(vcpu_rules, ARRAY_SIZE(vcpu_rules));
}

int jail_lock_disk(void)
{
	return install(disk_rules, ARRAY_SIZE(disk_rules));
}
