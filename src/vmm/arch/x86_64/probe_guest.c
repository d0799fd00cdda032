/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_guest.c -- the guest that probe.c times, for x86-64: in long mode, with one page of 2 MiB.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/arch.h"
#include "vmm/kvm_vm.h"

enum {
	CODE_GPA = 0x8000,
	PAGE_TABLES_GPA = 0x1000, /* three pages */
};

static const uint8_t guest_code[] = {
	0x48, 0xff, 0xc9, /* 1: dec %rcx */
	0x75, 0xfb,       /*    jnz 1b */
	0xe6, 0x10,       /*    out %al, $0x10 */
	0xeb, 0xf7,       /*    jmp 1b */
};

const uint32_t arch_probe_exit = KVM_EXIT_IO;

void arch_probe_spin(uint64_t count)
{
	__asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(count) : : "cc");
}

void arch_probe_load(const struct vm *vm)
{
	uint8_t *mem = vm->mem.ranges[0].host;
	const uint64_t to_l3 = (PAGE_TABLES_GPA + 0x1000) | 3,
		       to_l2 = (PAGE_TABLES_GPA + 0x2000) | 3,
		       page = 0x83; /* big, writable, present */

	memcpy(mem + CODE_GPA, guest_code, sizeof(guest_code));
	memcpy(mem + PAGE_TABLES_GPA, &to_l3, 8);
	memcpy(mem + PAGE_TABLES_GPA + 0x1000, &to_l2, 8);
	memcpy(mem + PAGE_TABLES_GPA + 0x2000, &page, 8);
}

int arch_probe_enter(int vcpu_fd)
{
	struct kvm_segment code = {.limit = 0xffffffff,
				   .selector = 8,
				   .type = 0xb,
				   .present = 1,
				   .l = 1,
				   .s = 1,
				   .g = 1};
	struct kvm_segment data = code;
	struct kvm_regs regs = {.rip = CODE_GPA, .rcx = 1, .rflags = 2};
	struct kvm_sregs sregs;

	if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs))
		return -errno;
	data.selector = 16;
	data.type = 3;
	data.l = 0;
	data.db = 1;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = 0x80000011; /* PG, ET, PE */
	sregs.cr3 = PAGE_TABLES_GPA;
	sregs.cr4 = 0x20;   /* PAE */
	sregs.efer = 0x500; /* LME, LMA */
	if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) || ioctl(vcpu_fd, KVM_SET_REGS, &regs))
		return -errno;
	return 0;
}

int arch_probe_set_count(int vcpu_fd, uint64_t count)
{
	struct kvm_regs regs;

	if (ioctl(vcpu_fd, KVM_GET_REGS, &regs))
		return -errno;
	regs.rcx = count;
	return ioctl(vcpu_fd, KVM_SET_REGS, &regs) ? -errno : 0;
}
