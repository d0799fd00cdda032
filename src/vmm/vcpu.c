/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a processor's thread does nothing but KVM_RUN; what comes out of it is an
 * access to a register, which the buses answer, or the end of the machine.  The first processor
 * starts in the state that PVH asks for, the others wait inside KVM for the start-up interrupt of
 * the first one.
 *
 * To stop a thread, immediate_exit is set and a signal sent: KVM_RUN returns if it runs, and will
 * return at once if it is about to. */
#include "vcpu.h"

#include <asm/prctl.h>
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpuid.h"
#include "fd.h"
#include "log.h"

#define KICK SIGUSR1

#ifndef ARCH_REQ_XCOMP_GUEST_PERM /* <asm/prctl.h> before Linux 5.17 */
#define ARCH_REQ_XCOMP_GUEST_PERM 0x1025
#endif
#define XFEATURE_XTILEDATA 18

enum { STACK_BYTES = 64 << 10, LEAF_XSAVE = 0xd, XCR0_PLAIN = 7 /* x87, SSE, AVX */ };

#define MSR_MISC_ENABLE   0x1a0
#define MSR_MTRR_DEF_TYPE 0x2ff

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

static int init_one(struct vcpu *vcpu, const struct kvm_cpuid2 *supported,
		    const struct vcpus_opts *opts)
{
	struct vm *vm = vcpu->vm;
	struct cpuid_opts cpuid = {
		.index = vcpu->index,
		.count = vm->n_vcpus,
		.nested = opts->nested,
		.tsc_deadline =
			ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0,
	};
	int size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), ret;
	void *run;

	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
	if (vcpu->fd < 0 || size < (int)sizeof(*vcpu->run))
		return vcpu->fd < 0 ? -errno : -EIO;
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	vcpu->run = run;
	vcpu->run_bytes = (size_t)size;
	ret = cpuid_set(supported, vcpu->fd, &cpuid);
	if (!ret)
		ret = set_msrs(vcpu);
	if (!ret)
		ret = set_xcr0(vcpu, supported);
	if (!ret && vcpu->index == 0)
		ret = set_pvh_state(vcpu, opts);
	return ret;
}

/* The state of AMX tiles is large, so that a guest gets them only when its monitor asks before it
 * makes a processor.  Hosts without them say no. */
static void ask_for_tiles(void)
{
	if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM, XFEATURE_XTILEDATA))
		log_dbg("processors without AMX tiles: %s", strerror(errno));
}

int vcpus_init(struct vcpus *vcpus, struct vm *vm, const struct vcpus_opts *opts,
	       struct pil_err *err)
{
	_auto_free struct kvm_cpuid2 *supported = NULL;
	int ret;

	*vcpus = (struct vcpus){.all = calloc(vm->n_vcpus, sizeof(*vcpus->all))};
	ask_for_tiles();
	ret = vcpus->all ? cpuid_create(&supported, vm->kvm_fd) : -ENOMEM;
	if (ret) {
		vcpus_finish(vcpus);
		return pil_err_set(err, -ret, "make %u processors", vm->n_vcpus);
	}
	while (vcpus->n < vm->n_vcpus) {
		struct vcpu *vcpu = &vcpus->all[vcpus->n];

		*vcpu = (struct vcpu){.vm = vm, .index = vcpus->n++, .fd = -1};
		ret = init_one(vcpu, supported, opts);
		if (ret) {
			pil_err_set(err, -ret, "make processor %u", vcpu->index);
			vcpus_finish(vcpus);
			return ret;
		}
	}
	return 0;
}

static uint64_t load(const void *from, unsigned len)
{
	uint64_t v = 0;

	memcpy(&v, from, len);
	return v;
}

static void handle_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			bus_write(&vcpu->vm->pio, run->io.port, run->io.size,
				  load(data, run->io.size));
		} else {
			uint64_t v = bus_read(&vcpu->vm->pio, run->io.port, run->io.size);

			memcpy(data, &v, run->io.size);
		}
	}
}

static void handle_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	unsigned len = run->mmio.len <= 8 ? run->mmio.len : 8;

	if (run->mmio.is_write) {
		bus_write(&vcpu->vm->mmio, run->mmio.phys_addr, len, load(run->mmio.data, len));
	} else {
		uint64_t v = bus_read(&vcpu->vm->mmio, run->mmio.phys_addr, len);

		memcpy(run->mmio.data, &v, len);
	}
}

/* Serves one exit.  False: the machine ends.  #syscalls vcpu: ioctl(1=KVM_GET_REGS) */
static bool handle_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct kvm_regs regs = {0};

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		handle_io(vcpu);
		return true;
	case KVM_EXIT_MMIO:
		handle_mmio(vcpu);
		return true;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return true;
	case KVM_EXIT_SHUTDOWN:
		vm_end(vcpu->vm, VM_END_PANIC, "processor %u: triple fault", vcpu->index);
		return false;
	case KVM_EXIT_FAIL_ENTRY:
		vm_end(vcpu->vm, VM_END_ERROR,
		       "processor %u: KVM cannot run it, hardware reason %#llx", vcpu->index,
		       (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		return false;
	default:
		ioctl(vcpu->fd, KVM_GET_REGS, &regs);
		vm_end(vcpu->vm, VM_END_PANIC,
		       "processor %u: KVM gave up at rip %#llx, exit reason %u, detail %u",
		       vcpu->index, (unsigned long long)regs.rip, run->exit_reason,
		       run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? run->internal.suberror : 0);
		return false;
	}
}

/* #syscalls vcpu: ioctl(1=KVM_RUN) */
static void *run_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	int ret = vcpu->enter ? vcpu->enter() : 0;

	if (ret) {
		vm_end(vcpu->vm, VM_END_ERROR, "processor %u: enter its jail: %s", vcpu->index,
		       strerrordesc_np(-ret));
		return NULL;
	}
	for (;;) {
		ret = ioctl(vcpu->fd, KVM_RUN, 0) ? errno : 0;
		if (__atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_RELAXED))
			break;
		if (ret == EINTR || ret == EAGAIN) /* a signal; not started by the first one yet */
			continue;
		if (ret)
			vm_end(vcpu->vm, VM_END_ERROR, "processor %u: KVM_RUN: %s", vcpu->index,
			       strerrordesc_np(ret));
		if (ret || !handle_exit(vcpu) || atomic_load(&vcpu->vm->end) >= 0)
			break;
	}
	return NULL;
}

static void on_kick(int sig)
{
	(void)sig; /* KVM_RUN returns; that is all */
}

int vcpus_start(struct vcpus *vcpus, int (*enter)(void), struct pil_err *err)
{
	struct sigaction kick = {.sa_handler = on_kick};
	pthread_attr_t attr;
	int ret = 0;

	sigaction(KICK, &kick, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	for (unsigned i = 0; i < vcpus->n && !ret; i++) {
		struct vcpu *vcpu = &vcpus->all[i];

		vcpu->enter = enter;
		ret = pthread_create(&vcpu->thread, &attr, run_thread, vcpu);
		vcpu->started = ret == 0;
	}
	pthread_attr_destroy(&attr);
	return ret ? pil_err_set(err, ret, "start %u processors", vcpus->n) : 0;
}

void vcpus_finish(struct vcpus *vcpus)
{
	for (unsigned i = 0; i < vcpus->n; i++) {
		struct vcpu *vcpu = &vcpus->all[i];

		if (!vcpu->started)
			continue;
		__atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELAXED);
		pthread_kill(vcpu->thread, KICK);
	}
	for (unsigned i = 0; i < vcpus->n; i++) {
		struct vcpu *vcpu = &vcpus->all[i];

		if (vcpu->started)
			pthread_join(vcpu->thread, NULL);
		if (vcpu->run)
			munmap(vcpu->run, vcpu->run_bytes);
		pil_close_p(&vcpu->fd);
	}
	free(vcpus->all);
	*vcpus = (struct vcpus){0};
}
