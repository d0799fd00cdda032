/* SPDX-License-Identifier: Apache-2.0
 *
 * machine.c -- arch.h for x86-64: addresses, interrupt controllers, processors.
 *
 * The kernel is entered by PVH, in 32-bit protected mode; the other processors wait for its
 * start-up interrupt. */
#include <asm/prctl.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/arch.h"
#include "vmm/arch/x86_64/cpuid.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/vcpu.h"

#ifndef ARCH_REQ_XCOMP_GUEST_PERM /* <asm/prctl.h> before Linux 5.17 */
#define ARCH_REQ_XCOMP_GUEST_PERM 0x1025
#endif
#define XFEATURE_XTILEDATA 18

enum { LEAF_XSAVE = 0xd, XCR0_PLAIN = 7 /* x87, SSE, AVX */ };

#define MSR_MISC_ENABLE   0x1a0
#define MSR_MTRR_DEF_TYPE 0x2ff

const struct arch_layout arch_layout = {
	.hole = LAYOUT_HOLE,
	.hole_end = LAYOUT_HOLE_END,
	.bars = LAYOUT_BARS,
	.ecam = LAYOUT_ECAM,
	.ecam_bytes = LAYOUT_ECAM_BYTES,
};

const uint32_t arch_audit = AUDIT_ARCH_X86_64;

const struct arch_extension arch_extensions[] = {
	{KVM_CAP_IRQCHIP, "IRQCHIP"},
	{KVM_CAP_EXT_CPUID, "EXT_CPUID"},
	{0},
};

int arch_vm_init(const struct vm *vm, struct pil_err *err)
{
	uint64_t identity = LAYOUT_IDENTITY;

	if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) ||
	    ioctl(vm->fd, KVM_SET_TSS_ADDR, LAYOUT_TSS))
		log_dbg("kvm: place its scratch pages: %s",
			strerror(errno)); /* not all need them */
	if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0))
		return pil_err_set(err, errno, "make the machine's interrupt controllers");
	return 0;
}

/* ---- processors ---- */

struct arch_processors {
	struct kvm_cpuid2 *supported;
	bool tsc_deadline;
};

/* The state of AMX tiles is large, so that a guest gets them only when its monitor asks before it
 * makes a processor.  Hosts without them say no. */
static void ask_for_tiles(void)
{
	if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM, XFEATURE_XTILEDATA))
		log_dbg("processors without AMX tiles: %s", strerror(errno));
}

int arch_processors_create(struct arch_processors **out, const struct vm *vm)
{
	struct arch_processors *shared = calloc(1, sizeof(*shared));
	int ret = shared ? cpuid_create(&shared->supported, vm->kvm_fd) : -ENOMEM;

	if (ret) {
		free(shared);
		return ret;
	}
	shared->tsc_deadline =
		ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	ask_for_tiles();
	*out = shared;
	return 0;
}

void arch_processors_destroy(struct arch_processors *shared)
{
	if (!shared)
		return;
	free(shared->supported);
	free(shared);
}

static int set_msrs(const struct vcpu *vcpu)
{
	static const struct kvm_msr_entry entries[] = {
		{.index = MSR_MTRR_DEF_TYPE, .data = 1 << 11 | 6}, /* on; write-back */
		{.index = MSR_MISC_ENABLE, .data = 1},             /* fast strings */
	};
	_Alignas(struct kvm_msrs) uint8_t room[sizeof(struct kvm_msrs) + sizeof(entries)] = {0};
	struct kvm_msrs *msrs = (struct kvm_msrs *)room;

	msrs->nmsrs = ARRAY_SIZE(entries);
	memcpy(msrs->entries, entries, sizeof(entries));
	/* Returns how many it knew; a guest can live without either. */
	return ioctl(vcpu->fd, KVM_SET_MSRS, msrs) < 0 ? -errno : 0;
}

/* Turns on the register sets the processor has.  Kernels do this themselves; KVM under an emulated
 * SVM (QEMU's) does not see them do it, and takes the sets away again.  -errno. */
static int set_xcr0(const struct vcpu *vcpu, const struct kvm_cpuid2 *supported)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1};

	for (unsigned i = 0; i < supported->nent; i++)
		if (supported->entries[i].function == LEAF_XSAVE && !supported->entries[i].index)
			xcrs.xcrs[0].value = supported->entries[i].eax & XCR0_PLAIN;
	if (xcrs.xcrs[0].value == 0)
		return 0;
	return ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs) ? -errno : 0;
}

/* 32-bit protected mode, flat segments, no paging; ebx holds @start_info_gpa. */
static int set_pvh_state(const struct vcpu *vcpu, const struct vcpus_opts *opts)
{
	struct kvm_segment code = {.limit = 0xffffffff,
				   .selector = 8,
				   .type = 0xb,
				   .present = 1,
				   .db = 1,
				   .s = 1,
				   .g = 1};
	struct kvm_segment data = code, task = {.limit = 0x67, .type = 0xb, .present = 1};
	struct kvm_regs regs = {.rip = opts->entry_gpa, .rbx = opts->start_info_gpa, .rflags = 2};
	struct kvm_sregs sregs;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
		return -errno;
	data.selector = 16;
	data.type = 3;
	task.selector = 24;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.tr = task;
	sregs.gdt.limit = sregs.idt.limit = 0;
	sregs.cr0 = 0x11; /* PE, ET */
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) || ioctl(vcpu->fd, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}

int arch_vcpu_init(const struct vcpu *vcpu, const struct arch_processors *shared,
		   const struct vcpus_opts *opts)
{
	const struct cpuid_opts cpuid = {
		.index = vcpu->index,
		.count = vcpu->vm->n_vcpus,
		.nested = opts->nested,
		.tsc_deadline = shared->tsc_deadline,
	};
	int ret = cpuid_set(shared->supported, vcpu->fd, &cpuid);

	if (!ret)
		ret = set_msrs(vcpu);
	if (!ret)
		ret = set_xcr0(vcpu, shared->supported);
	if (!ret && vcpu->index == 0)
		ret = set_pvh_state(vcpu, opts);
	return ret;
}

/* #syscalls vcpu: ioctl(1=KVM_GET_REGS) */
uint64_t arch_vcpu_pc(const struct vcpu *vcpu)
{
	struct kvm_regs regs;

	return ioctl(vcpu->fd, KVM_GET_REGS, &regs) ? 0 : regs.rip;
}
