/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a sandbox runs whole distributions, so that a list of what may be called, as
 * an executor has, would be nearly all.  This is a list of what may not, close to what container
 * engines deny.  What the guest's root needs over its own namespaces stays: mounts, namespaces
 * within (containers, the sandbox of a browser), ptrace.
 *
 * The filter is made without a library, because libseccomp takes 35 ms for it.  A call that depends
 * on no argument costs nothing later: the kernel keeps a bitmap of those.
 *
 * A call that is newer than this list fails with ENOSYS: libraries take that for an old kernel. */
#include "machine/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* clang-format off */
const struct denied_call calls_denied[] = {
	/* keys of the host's user: they are counted and found by user, not by namespace */
	{"add_key", 248, 286, EPERM},
	{"keyctl", 250, 288, EPERM},
	{"request_key", 249, 287, EPERM},
	/* programs that the kernel runs; counters and traces of what it does */
	{"bpf", 321, 357, EPERM},
	{"lookup_dcookie", 212, 253, EPERM},
	{"perf_event_open", 298, 336, EPERM},
	/* page faults that a program answers make a race in the kernel as long as it likes */
	{"userfaultfd", 323, 374, EPERM},
	/* a second way to make nearly all system calls, past this list; programs do without */
	{"io_uring_enter", 426, 426, ENOSYS},
	{"io_uring_register", 427, 427, ENOSYS},
	{"io_uring_setup", 425, 425, ENOSYS},
	/* another kernel, or more of this one */
	{"create_module", 174, 127, EPERM},
	{"delete_module", 176, 129, EPERM},
	{"finit_module", 313, 350, EPERM},
	{"get_kernel_syms", 177, 130, EPERM},
	{"init_module", 175, 128, EPERM},
	{"kexec_file_load", 320, CALLS_NOT_A_CALL, EPERM},
	{"kexec_load", 246, 283, EPERM},
	{"query_module", 178, 167, EPERM},
	{"reboot", 169, 88, EPERM},
	/* files by number, whatever folder they are in */
	{"open_by_handle_at", 304, 342, EPERM},
	/* the host's clock */
	{"clock_settime", 227, 264, EPERM},
	{"settimeofday", 164, 79, EPERM},
	{"stime", CALLS_NOT_A_CALL, 25, EPERM},
	/* the host's disks, swap, accounts, log */
	{"acct", 163, 51, EPERM},
	{"nfsservctl", 180, 169, EPERM},
	{"quotactl", 179, 131, EPERM},
	{"quotactl_fd", 443, 443, EPERM},
	{"swapoff", 168, 115, EPERM},
	{"swapon", 167, 87, EPERM},
	{"syslog", 103, 103, EPERM},
	/* ports of the host's hardware */
	{"ioperm", 173, 101, EPERM},
	{"iopl", 172, 110, EPERM},
	/* old ones that nothing has used for long */
	{"_sysctl", 156, 149, ENOSYS},
	{"sysfs", 139, 135, ENOSYS},
	{"uselib", 134, 86, ENOSYS},
	{"ustat", 136, 62, ENOSYS},
	{"vm86", CALLS_NOT_A_CALL, 166, ENOSYS},
	{"vm86old", CALLS_NOT_A_CALL, 113, ENOSYS},
	/* 32-bit programs: sockets whose family a filter cannot see; C libraries have had socket() since 2016 */
	{"socketcall", CALLS_NOT_A_CALL, 102, ENOSYS},
	{NULL, 0, 0, 0},
};
/* clang-format on */

enum {
	LAST_CALL =
		469, /* file_setattr, Linux 6.17: the numbers are the same for all from 403 on */
	SOCKET = 41,
	SOCKET_32 = 359,
	PERSONALITY = 135,
	PERSONALITY_32 = 136,
	FCNTL = 72,
	FCNTL_32 = 55,
	FCNTL64_32 = 221,
	SETRLIMIT = 160,
	SETRLIMIT_32 = 75,
	PRLIMIT = 302,
	PRLIMIT_32 = 340,
	MAX_PIPE_BYTES = 64 << 10, /* what a pipe has from the start */
};

/* All others reach much code for few programs: vsock (the host's own virtual machines), ALG, and
 * what is loaded as a module when it is first asked for. */
static const uint32_t families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK,
				    AF_PACKET /* of its own network: ping, tcpdump */};

/* As container engines; ADDR_NO_RANDOMIZE is for debuggers. */
static const uint32_t personalities[] = {PER_LINUX,         PER_LINUX32,
					 UNAME26,           PER_LINUX32 | UNAME26,
					 ADDR_NO_RANDOMIZE, 0xffffffff /* asks */};

struct program {
	struct sock_filter *code;
	unsigned n;
};

static void put(struct program *p, struct sock_filter op)
{
	if (p->n < CALLS_MAX_CODE)
		p->code[p->n++] = op;
}

static void load(struct program *p, size_t offset)
{
	put(p, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void answer(struct program *p, uint32_t action)
{
	put(p, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action));
}

/* Where @jump (BPF_JEQ ...) holds for what was loaded and @value: @action. */
static void answer_if(struct program *p, uint16_t jump, uint32_t value, uint32_t action)
{
	put(p, (struct sock_filter)BPF_JUMP((uint16_t)(BPF_JMP | BPF_K | jump), value, 0, 1));
	answer(p, action);
}

/* Call @nr may have one of @values as its first argument, or fails with @error. */
static void look_into(struct program *p, uint32_t nr, const uint32_t *values, size_t n, int error)
{
	put(p,
	    (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, (uint8_t)(2 * n + 2)));
	load(p, offsetof(struct seccomp_data, args[0])); /* the half that counts */
	for (size_t i = 0; i < n; i++)
		answer_if(p, BPF_JEQ, values[i], SECCOMP_RET_ALLOW);
	answer(p, SECCOMP_RET_ERRNO | (uint32_t)error);
}

/* Call @nr, fcntl, may make no pipe larger: their pages are counted by user, and others' pipes
 * would get none. */
static void keep_pipes_small(struct program *p, uint32_t nr)
{
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 5));
	load(p, offsetof(struct seccomp_data, args[1]));
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_SETPIPE_SZ, 0, 3));
	load(p, offsetof(struct seccomp_data, args[2]));
	answer_if(p, BPF_JGT, MAX_PIPE_BYTES, SECCOMP_RET_ERRNO | EPERM);
	load(p, offsetof(struct seccomp_data, nr));
}

/* Call @nr sets limit args[@at], unless args[@limit] is NULL.  That of core files stays what it is,
 * 1: the kernel starts no program of the host's for a core then (core_pattern), as it does with 0.
 * Programs are told that it was set: many set it to 0 and end if they cannot. */
static void keep_core_limit(struct program *p, uint32_t nr, unsigned at, unsigned limit)
{
	const size_t pointer = offsetof(struct seccomp_data, args[limit]);

	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 8));
	load(p, offsetof(struct seccomp_data, args[at]));
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RLIMIT_CORE, 0, 5));
	load(p, pointer);
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2));
	load(p, pointer + sizeof(uint32_t));
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0));
	answer(p, SECCOMP_RET_ERRNO); /* 0 */
	load(p, offsetof(struct seccomp_data, nr));
}

static void put_arch(struct program *p, uint32_t arch, bool wide)
{
	unsigned skip;

	load(p, offsetof(struct seccomp_data, arch));
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arch, 1, 0));
	skip = p->n;
	put(p, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0));
	load(p, offsetof(struct seccomp_data, nr));
	answer_if(p, BPF_JGT, LAST_CALL, SECCOMP_RET_ERRNO | ENOSYS); /* x32's, too */
	for (const struct denied_call *d = calls_denied; d->name; d++) {
		uint32_t nr = wide ? d->nr : d->nr32;

		if (nr != CALLS_NOT_A_CALL)
			answer_if(p, BPF_JEQ, nr, SECCOMP_RET_ERRNO | d->error);
	}
	keep_pipes_small(p, wide ? FCNTL : FCNTL_32);
	if (!wide)
		keep_pipes_small(p, FCNTL64_32);
	keep_core_limit(p, wide ? SETRLIMIT : SETRLIMIT_32, 0, 1);
	keep_core_limit(p, wide ? PRLIMIT : PRLIMIT_32, 1, 2);
	look_into(p, wide ? SOCKET : SOCKET_32, families, ARRAY_SIZE(families), EAFNOSUPPORT);
	load(p, offsetof(struct seccomp_data, nr));
	look_into(p, wide ? PERSONALITY : PERSONALITY_32, personalities, ARRAY_SIZE(personalities),
		  EPERM);
	answer(p, SECCOMP_RET_ALLOW);
	p->code[skip].k = p->n - skip - 1;
}

unsigned calls_filter(struct sock_filter *code)
{
	struct program p = {.code = code};

	put_arch(&p, AUDIT_ARCH_X86_64, true);
	put_arch(&p, AUDIT_ARCH_I386, false);
	answer(&p, SECCOMP_RET_ERRNO | ENOSYS);
	return p.n;
}
