/* SPDX-License-Identifier: Apache-2.0
 *
 * kvm_vm.c -- see kvm_vm.h.
 *
 * Theory of operation: the guest's memory is one mapping, told to KVM as one or two slots, below
 * and above the hole for registers.  Nothing is touched before the guest does, so that it costs
 * nothing until then.  It is private memory, unless a vhost-user peer must see it: then it is a
 * file (memory_file.h).  The host backs both with huge pages where it can.
 *
 * The interrupt controllers are KVM's.  Devices have message-signalled interrupts only.  Where the
 * sender is this process, it sends them with KVM_SIGNAL_MSI: an irqfd would save no system call,
 * and cost a grace period of KVM's each time the guest sets up a vector.  Where the sender is
 * another (virtiofsd), an irqfd saves us from waking up for it (since Linux 5.11). */
#include "vmm/kvm_vm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "vmm/arch.h"
#include "vmm/memory_file.h"

const char *const vm_end_str[] = {
	[VM_END_POWER_OFF] = "powered off",
	[VM_END_ERROR] = "failed",
	[VM_END_PANIC] = "panicked",
	[VM_END_REBOOT] = "asked for a reboot",
};
static_assert(ARRAY_SIZE(vm_end_str) == VM_NUM_ENDS, "vm_end_str");

int vm_open_kvm(struct pil_err *err)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), code = errno;

	if (fd >= 0)
		return fd;
	pil_err_set(err, code, "open '/dev/kvm'");
	if (code == EACCES)
		pil_err_hint(err, "sudo usermod -aG kvm \"$USER\", then log in again");
	else
		pil_err_hint(err, "sudo modprobe kvm_amd || sudo modprobe kvm_intel, or enable "
				  "virtualization in the firmware");
	return -code;
}

unsigned vm_max_vcpus(int kvm_fd)
{
	int max = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);

	if (max <= 0) /* as the interface says of its first versions */
		return 4;
	return max < VM_MAX_VCPUS ? (unsigned)max : VM_MAX_VCPUS;
}

/* The first extension of a list that this KVM does not have; NULL: it has all. */
static const char *find_lacking(int kvm_fd, const struct arch_extension *list)
{
	while (list->name && ioctl(kvm_fd, KVM_CHECK_EXTENSION, list->cap) > 0)
		list++;
	return list->name;
}

static int check_kvm(int kvm_fd, unsigned n_vcpus, struct pil_err *err)
{
	static const struct arch_extension needed[] = {
		{KVM_CAP_USER_MEMORY, "USER_MEMORY"},
		{KVM_CAP_SIGNAL_MSI, "SIGNAL_MSI"},
		{KVM_CAP_IOEVENTFD, "IOEVENTFD"},
		{KVM_CAP_IOEVENTFD_ANY_LENGTH, "IOEVENTFD_ANY_LENGTH"},
		{KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT"},
		{0},
	};
	unsigned max = vm_max_vcpus(kvm_fd);
	const char *lacking;

	if (ioctl(kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return pil_err_say(err, ENOTSUP, "'/dev/kvm' is not KVM as we know it");
	lacking = find_lacking(kvm_fd, needed);
	if (!lacking)
		lacking = find_lacking(kvm_fd, arch_extensions);
	if (lacking)
		return pil_err_say(err, ENOTSUP, "this KVM lacks KVM_CAP_%s", lacking);
	return n_vcpus <= max ? 0
			      : pil_err_say(err, EINVAL, "%u processors: this KVM has at most %u",
					    n_vcpus, max);
}

static int add_range(struct vm *vm, uint64_t gpa, uint8_t *host, uint64_t len, uint64_t offset,
		     struct pil_err *err)
{
	struct kvm_userspace_memory_region slot = {
		.slot = (uint32_t)vm->mem.n_ranges,
		.guest_phys_addr = gpa,
		.memory_size = len,
		.userspace_addr = (uintptr_t)host,
	};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &slot))
		return pil_err_set(err, errno, "give the machine %llu MiB of memory",
				   (unsigned long long)len >> 20);
	vm->mem.ranges[vm->mem.n_ranges++] = (struct guest_mem_range){gpa, len, host, offset};
	return 0;
}

/* Maps @len bytes at a multiple of MEMORY_HUGE_BYTES: KVM backs the guest with huge pages only
 * where the guest's address and ours agree in what is below. */
static uint8_t *map_aligned(uint64_t len, int flags, int fd)
{
	uint8_t *wide = mmap(NULL, len + MEMORY_HUGE_BYTES, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t head = -(uintptr_t)wide & (MEMORY_HUGE_BYTES - 1);

	if (wide == MAP_FAILED)
		return MAP_FAILED;
	if (head)
		munmap(wide, head);
	munmap(wide + head + len, MEMORY_HUGE_BYTES - head);
	return mmap(wide + head, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
}

static int add_memory(struct vm *vm, const struct vm_opts *opts, struct pil_err *err)
{
	uint64_t low = opts->mem_bytes < arch_layout.hole ? opts->mem_bytes : arch_layout.hole;
	int kind = vm->mem.fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	uint8_t *host = map_aligned(opts->mem_bytes, MAP_NORESERVE | kind, vm->mem.fd);
	int ret;

	if (host == MAP_FAILED) {
		pil_err_hint(err, "set memory= in the config to less than this host has");
		return pil_err_set(err, errno, "map %llu MiB for the guest",
				   (unsigned long long)opts->mem_bytes >> 20);
	}
	madvise(host, opts->mem_bytes, MADV_HUGEPAGE); /* a wish */
	madvise(host, opts->mem_bytes, MADV_DONTDUMP);
	ret = add_range(vm, 0, host, low, 0, err);
	if (!ret && opts->mem_bytes > low)
		ret = add_range(vm, arch_layout.hole_end, host + low, opts->mem_bytes - low, low,
				err);
	if (ret && !vm->mem.n_ranges)
		munmap(host, opts->mem_bytes);
	return ret;
}

int vm_init(struct vm *vm, int kvm_fd, const struct vm_opts *opts, struct pil_err *err)
{
	int ret;

	*vm = (struct vm){.kvm_fd = kvm_fd,
			  .fd = -1,
			  .end_fd = -1,
			  .end = -1,
			  .mem.fd = opts->memory_fd,
			  .decided = ATOMIC_FLAG_INIT,
			  .routes.lock = PTHREAD_MUTEX_INITIALIZER};
	vm->n_vcpus = opts->n_vcpus;
	ret = check_kvm(kvm_fd, opts->n_vcpus, err);
	if (ret)
		goto fail;
	vm->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	do /* the kernel waits in there for others, and gives up at any signal */
		vm->fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	while (vm->fd < 0 && errno == EINTR);
	if (vm->end_fd < 0 || vm->fd < 0) {
		ret = pil_err_set(err, errno, "make a virtual machine");
		goto fail;
	}
	fcntl(vm->fd, F_SETFD, FD_CLOEXEC);
	ret = arch_vm_init(vm, err);
	if (ret)
		goto fail;
	ret = add_memory(vm, opts, err);
	if (!ret)
		return 0;
fail:
	vm_finish(vm);
	return ret;
}

void vm_finish(struct vm *vm)
{
	uint64_t bytes = 0;

	for (int i = 0; i < vm->mem.n_ranges; i++)
		bytes += vm->mem.ranges[i].len_bytes;
	if (bytes)
		munmap(vm->mem.ranges[0].host, bytes);
	vm->mem.n_ranges = 0;
	pil_close_p(&vm->mem.fd);
	pil_close_p(&vm->end_fd);
	pil_close_p(&vm->fd);
	pil_close_p(&vm->kvm_fd);
}

/* #syscalls vcpu disk: ioctl(1=KVM_SIGNAL_MSI) */
void vm_signal_msi(const struct vm *vm, uint64_t addr, uint32_t data)
{
	struct kvm_msi msi = {
		.address_lo = (uint32_t)addr,
		.address_hi = (uint32_t)(addr >> 32),
		.data = data,
	};

	ioctl(vm->fd, KVM_SIGNAL_MSI, &msi); /* address and data are the guest's: its own loss */
}

/* Tells KVM the table, which replaces what it had: its own routes are of controllers without pins
 * here. */
static int set_routes_locked(const struct vm *vm)
{
	_auto_free struct kvm_irq_routing *table =
		calloc(1, sizeof(*table) + VM_MAX_ROUTES * sizeof(table->entries[0]));

	if (!table)
		return -ENOMEM;
	for (uint32_t i = 0; i < VM_MAX_ROUTES; i++) {
		if (!vm->routes.all[i].used)
			continue;
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = i,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = {.address_lo = (uint32_t)vm->routes.all[i].addr,
				  .address_hi = (uint32_t)(vm->routes.all[i].addr >> 32),
				  .data = vm->routes.all[i].data},
		};
	}
	return ioctl(vm->fd, KVM_SET_GSI_ROUTING, table) ? -errno : 0;
}

static int set_irqfd(const struct vm *vm, int event_fd, int gsi, uint32_t flags)
{
	struct kvm_irqfd irqfd = {.fd = (uint32_t)event_fd, .gsi = (uint32_t)gsi, .flags = flags};

	return ioctl(vm->fd, KVM_IRQFD, &irqfd) ? -errno : 0;
}

/* #syscalls vcpu: ioctl(1=KVM_SET_GSI_ROUTING) ioctl(1=KVM_IRQFD) */
int vm_add_irqfd(struct vm *vm, int event_fd, uint64_t addr, uint32_t data)
{
	struct vm_routes *r = &vm->routes;
	int ret = -ENOSPC, i = 0;

	pthread_mutex_lock(&r->lock);
	while (i < VM_MAX_ROUTES && r->all[i].used)
		i++;
	if (i < VM_MAX_ROUTES) {
		r->all[i].used = true;
		r->all[i].addr = addr;
		r->all[i].data = data;
		ret = set_routes_locked(vm);
		if (!ret)
			ret = set_irqfd(vm, event_fd, i, 0);
		if (ret)
			r->all[i].used = false; /* the route stays for nobody until the next */
	}
	pthread_mutex_unlock(&r->lock);
	return ret ? ret : i;
}

void vm_remove_irqfd(struct vm *vm, int event_fd, int gsi)
{
	int ret = set_irqfd(vm, event_fd, gsi, KVM_IRQFD_FLAG_DEASSIGN);

	if (ret)
		log_err("interrupts: take back an eventfd: %s", strerror(-ret));
	pthread_mutex_lock(&vm->routes.lock);
	vm->routes.all[gsi].used = false;
	pthread_mutex_unlock(&vm->routes.lock);
}

/* #syscalls vcpu: ioctl(1=KVM_IOEVENTFD) */
int vm_add_doorbell(const struct vm *vm, uint64_t gpa, int event_fd)
{
	struct kvm_ioeventfd bell = {.addr = gpa,
				     .fd = event_fd}; /* len 0: any length, the fast way */

	return ioctl(vm->fd, KVM_IOEVENTFD, &bell) ? -errno : 0;
}

void vm_remove_doorbell(const struct vm *vm, uint64_t gpa, int event_fd)
{
	struct kvm_ioeventfd bell = {.addr = gpa,
				     .fd = event_fd,
				     .flags = KVM_IOEVENTFD_FLAG_DEASSIGN};

	if (ioctl(vm->fd, KVM_IOEVENTFD, &bell) && errno != ENOENT)
		log_dbg("doorbell: %s", strerror(errno));
}

void vm_end(struct vm *vm, enum vm_end end, const char *why, ...)
{
	uint64_t one = 1;
	va_list args;

	if (atomic_flag_test_and_set(&vm->decided))
		return;
	if (why) {
		va_start(args, why);
		vsnprintf(vm->why, sizeof(vm->why), why, args);
		va_end(args);
	}
	atomic_store(&vm->end, (int)end);
	if (write(vm->end_fd, &one, sizeof(one)) < 0)
		log_dbg("end: %s", strerror(errno));
}
