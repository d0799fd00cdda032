/* SPDX-License-Identifier: Apache-2.0
 *
 * probe.c -- see probe.h.
 *
 * Theory of operation: /dev/kvm may be there and yet emulate each of the guest's instructions, a
 * thousand times slower than the processor.  So a guest of five instructions counts down in long
 * mode, as Linux would run, and the same loop runs on the host.  The count grows until the guest
 * takes long enough for the way in and out not to matter.
 *
 * On a busy host either may wait for a processor in the middle of it, for longer than it runs.  So
 * the host's loop counts by its fastest run, and a guest that seems slow gets more trials. */
#include "vmm/probe.h"

#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "vmm/arch.h"
#include "vmm/kvm_vm.h"

enum {
	MEMORY_BYTES = 2 << 20,
	FIRST_COUNT = 1000,
	LAST_COUNT = 1 << 26,
	LONG_ENOUGH_NS = 4000000,
	LIMIT_MS = 1000,
	TOO_SLOW = 5,
	GUEST_TRIALS = 8,
	HOST_TRIALS = 3,
};

const char *const probe_kvm_str[] = {
	[PROBE_USABLE] = "usable",
	[PROBE_EMULATED] = "emulated",
	[PROBE_DENIED] = "denied",
	[PROBE_ABSENT] = "absent",
};
static_assert(ARRAY_SIZE(probe_kvm_str) == PROBE_NUM_KVMS, "probe_kvm_str");

static uint64_t time_host(uint64_t count)
{
	uint64_t start = (uint64_t)clock_now_ns();

	arch_probe_spin(count);
	return (uint64_t)clock_now_ns() - start;
}

/* Lets the guest count down from @count; 0: it did not come back as it should. */
static uint64_t time_guest(int vcpu_fd, const struct kvm_run *run, uint64_t count)
{
	uint64_t start;

	if (arch_probe_set_count(vcpu_fd, count))
		return 0;
	start = (uint64_t)clock_now_ns();
	if (ioctl(vcpu_fd, KVM_RUN, 0) || run->exit_reason != arch_probe_exit)
		return 0;
	return (uint64_t)clock_now_ns() - start;
}

static uint64_t fastest_on_host(uint64_t count)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < HOST_TRIALS; i++) {
		uint64_t ns = time_host(count);

		best = ns < best ? ns : best;
	}
	return best ? best : 1;
}

/* How many times as long as on the host a loop took; 0: the guest does not run. */
static double slowdown_once(int vcpu_fd, const struct kvm_run *run)
{
	uint64_t count = FIRST_COUNT, guest = time_guest(vcpu_fd, run, 1);

	while (guest) {
		guest = time_guest(vcpu_fd, run, count);
		if (guest >= LONG_ENOUGH_NS || count >= LAST_COUNT)
			break;
		count *= 8;
	}
	return guest ? (double)guest / (double)fastest_on_host(count) : 0;
}

static void compare(struct probe *probe, int vcpu_fd, const struct kvm_run *run)
{
	for (int i = 0; i < GUEST_TRIALS && (!i || probe->slowdown > TOO_SLOW); i++) {
		double slowdown = slowdown_once(vcpu_fd, run);

		if (slowdown <= 0)
			break; /* it failed, or ran out of its time */
		if (!i || slowdown < probe->slowdown)
			probe->slowdown = slowdown;
	}
	if (probe->slowdown <= 0) {
		probe->kvm = PROBE_EMULATED;
		pil_err_say(&probe->why, EIO,
			    "a guest of five instructions does not run on this KVM");
		return;
	}
	probe->kvm = probe->slowdown > TOO_SLOW ? PROBE_EMULATED : PROBE_USABLE;
	if (probe->kvm == PROBE_EMULATED)
		pil_err_hint(&probe->why, "use a host with hardware virtualization, or a virtual "
					  "machine with nested virtualization");
	if (probe->kvm == PROBE_EMULATED)
		pil_err_say(
			&probe->why, EIO,
			"this KVM emulates guests: a loop takes %.0f times as long as on the host",
			probe->slowdown);
}

static void on_alarm(int sig)
{
	(void)sig; /* KVM_RUN returns */
}

static int run_guest(struct probe *probe, struct vm *vm)
{
	const struct sigaction alarm = {.sa_handler = on_alarm};
	const struct itimerval limit = {.it_value = {.tv_sec = LIMIT_MS / 1000}}, none = {0};
	_auto_fd int vcpu_fd = ioctl(vm->fd, KVM_CREATE_VCPU, 0);
	int size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), ret;
	struct kvm_run *run;

	if (vcpu_fd < 0 || size < (int)sizeof(*run))
		return pil_err_set(&probe->why, vcpu_fd < 0 ? errno : EIO, "make a processor");
	arch_probe_load(vm);
	ret = arch_probe_enter(vcpu_fd);
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
	if (ret || run == MAP_FAILED)
		return pil_err_set(&probe->why, ret ? -ret : errno, "set up a processor");
	sigaction(SIGALRM, &alarm, NULL);
	setitimer(ITIMER_REAL, &limit, NULL);
	compare(probe, vcpu_fd, run);
	setitimer(ITIMER_REAL, &none, NULL);
	munmap(run, (size_t)size);
	return 0;
}

void probe_run(struct probe *probe)
{
	struct vm_opts opts = {.mem_bytes = MEMORY_BYTES, .n_vcpus = 1, .memory_fd = -1};
	struct vm vm;
	int kvm_fd;

	*probe = (struct probe){.kvm = PROBE_ABSENT};
	kvm_fd = vm_open_kvm(&probe->why);
	if (kvm_fd < 0) {
		if (kvm_fd == -EACCES || kvm_fd == -EPERM)
			probe->kvm = PROBE_DENIED;
		return;
	}
	probe->max_vcpus = vm_max_vcpus(kvm_fd);
	if (vm_init(&vm, kvm_fd, &opts, &probe->why))
		return;
	if (run_guest(probe, &vm))
		probe->kvm = PROBE_ABSENT;
	vm_finish(&vm);
}

static void print_string(const char *key, const char *text)
{
	printf(",\"%s\":\"", key);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar((unsigned char)*text < ' ' ? '?' : *text);
	}
	putchar('"');
}

void probe_print(const struct probe *probe)
{
	printf("{\"kvm\":\"%s\",\"processors\":%u,\"slowdown\":", probe_kvm_str[probe->kvm],
	       probe->max_vcpus);
	if (probe->slowdown > 0)
		printf("%.2f", probe->slowdown);
	else
		printf("null");
	print_string("why", probe->why.msg);
	print_string("hint", probe->why.hint);
	printf("}\n");
}
