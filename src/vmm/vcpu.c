/* SPDX-License-Identifier: Apache-2.0
 *
 * vcpu.c -- see vcpu.h.
 *
 * Theory of operation: a processor's thread does nothing but KVM_RUN; what comes out of it is an
 * access to a register, which the buses answer, or the end of the machine.  The first processor
 * starts at the kernel's entry, the others wait inside KVM until the first one starts them.
 *
 * To stop a thread, immediate_exit is set and a signal sent: KVM_RUN returns if it runs, and will
 * return at once if it is about to. */
#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "vmm/arch.h"

#define KICK SIGUSR1

enum { STACK_BYTES = 64 << 10 };

static int init_one(struct vcpu *vcpu, const struct arch_processors *shared,
		    const struct vcpus_opts *opts)
{
	struct vm *vm = vcpu->vm;
	int size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *run;

	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
	if (vcpu->fd < 0 || size < (int)sizeof(*vcpu->run))
		return vcpu->fd < 0 ? -errno : -EIO;
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	vcpu->run = run;
	vcpu->run_bytes = (size_t)size;
	return arch_vcpu_init(vcpu, shared, opts);
}

int vcpus_init(struct vcpus *vcpus, struct vm *vm, const struct vcpus_opts *opts,
	       struct pil_err *err)
{
	struct arch_processors *shared = NULL;
	int ret;

	*vcpus = (struct vcpus){.all = calloc(vm->n_vcpus, sizeof(*vcpus->all))};
	ret = vcpus->all ? arch_processors_create(&shared, vm) : -ENOMEM;
	if (ret) {
		vcpus_finish(vcpus);
		return pil_err_set(err, -ret, "make %u processors", vm->n_vcpus);
	}
	while (!ret && vcpus->n < vm->n_vcpus) {
		struct vcpu *vcpu = &vcpus->all[vcpus->n];

		*vcpu = (struct vcpu){.vm = vm, .index = vcpus->n++, .fd = -1};
		ret = init_one(vcpu, shared, opts);
	}
	arch_processors_destroy(shared);
	if (ret) {
		pil_err_set(err, -ret, "make processor %u", vcpus->n - 1);
		vcpus_finish(vcpus);
	}
	return ret;
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

/* Serves one exit.  False: the machine ends. */
static bool handle_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

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
		vm_end(vcpu->vm, VM_END_PANIC,
		       "processor %u: KVM gave up at %#llx, exit reason %u, detail %u", vcpu->index,
		       (unsigned long long)arch_vcpu_pc(vcpu), run->exit_reason,
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
