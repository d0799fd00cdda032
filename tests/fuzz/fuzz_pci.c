/* SPDX-License-Identifier: Apache-2.0
 *
 * What a guest's processors can do to the PCI bus and to the devices on it, in any order: accesses
 * of registers, writes to the memory the rings lie in, doorbells, interrupts.  KVM is not needed:
 * the functions that talk to it are here, and as strict. */
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "virtio/virtio_balloon.h"
#include "virtio/virtio_blk.h"
#include "virtio/virtio_console.h"
#include "virtio/virtio_fs.h"
#include "virtio/virtio_net.h"
#include "virtio/virtio_rng.h"
#include "virtio/virtio_vsock.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/kvm_vm.h"
#include "vmm/virtio_pci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	MEMORY_BYTES = 64 << 10,
	IMAGE_BYTES = 64 << 10,
	MAX_STEPS = 256,
	N_DEVICES = 7, /* in slots 1 to 7 */
	DOORBELLS = 0x3000,
};

int vm_add_doorbell(const struct vm *vm, uint64_t gpa, int event_fd)
{
	(void)vm, (void)gpa, (void)event_fd;
	return 0;
}

void vm_remove_doorbell(const struct vm *vm, uint64_t gpa, int event_fd)
{
	(void)vm, (void)gpa, (void)event_fd;
}

void vm_signal_msi(const struct vm *vm, uint64_t addr, uint32_t data)
{
	(void)vm, (void)addr, (void)data;
}

/* The eventfd of each number; 0: none. */
static struct {
	pthread_mutex_t lock;
	int fds[VM_MAX_ROUTES];
} irqfds = {.lock = PTHREAD_MUTEX_INITIALIZER};

int vm_add_irqfd(struct vm *vm, int event_fd, uint64_t addr, uint32_t data)
{
	int gsi = -1;

	(void)vm, (void)addr, (void)data;
	pthread_mutex_lock(&irqfds.lock);
	for (int i = 0; i < VM_MAX_ROUTES; i++) {
		if (irqfds.fds[i] == event_fd) /* KVM takes one only once */
			abort();
		if (!irqfds.fds[i] && gsi < 0)
			gsi = i;
	}
	if (gsi < 0)
		abort();
	irqfds.fds[gsi] = event_fd;
	pthread_mutex_unlock(&irqfds.lock);
	return gsi;
}

void vm_remove_irqfd(struct vm *vm, int event_fd, int gsi)
{
	(void)vm;
	pthread_mutex_lock(&irqfds.lock);
	if (gsi < 0 || gsi >= VM_MAX_ROUTES || irqfds.fds[gsi] != event_fd)
		abort();
	irqfds.fds[gsi] = 0;
	pthread_mutex_unlock(&irqfds.lock);
}

static void expect_no_irqfds(void)
{
	for (int i = 0; i < VM_MAX_ROUTES; i++)
		if (irqfds.fds[i])
			abort();
}

void vm_end(struct vm *vm, enum vm_end end, const char *why, ...)
{
	(void)vm, (void)end, (void)why;
}

struct world {
	struct vm vm;
	struct pci_bus bus;
	struct loop *loop;
	struct hop hop;
	struct virtio_pci *devices[N_DEVICES];
	int image_fd, wire_fd; /* behind the disk and the network card */
	struct loop_source stop;
	pthread_t thread;
};

static void *serve(void *arg)
{
	loop_run(((struct world *)arg)->loop);
	return NULL;
}

static void stop_ready(struct loop_source *source, uint32_t events)
{
	(void)events;
	loop_stop(container_of(source, struct world, stop)->loop, 0);
}

static void add(struct world *w, unsigned i, struct virtio_device *dev)
{
	if (virtio_pci_create(&w->devices[i], dev, &w->vm, &w->bus, w->loop, &w->hop, NULL))
		abort();
}

static void add_devices(struct world *w)
{
	const struct virtio_net_opts net = {.mtu = 1500};
	struct virtio_blk_opts blk = {.path = "image"};
	struct virtio_device *dev;
	int pair[2];

	w->image_fd = blk.fd = memfd_create("image", MFD_CLOEXEC);
	if (blk.fd < 0 || ftruncate(blk.fd, IMAGE_BYTES) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	w->wire_fd = pair[1];
	if (virtio_rng_create(&dev, NULL))
		abort();
	add(w, 0, dev);
	if (virtio_console_create(&dev, w->loop, -1, NULL))
		abort();
	add(w, 1, dev);
	if (virtio_balloon_create(&dev, NULL))
		abort();
	add(w, 2, dev);
	if (virtio_vsock_create(&dev, w->loop, NULL))
		abort();
	add(w, 3, dev);
	if (virtio_blk_create(&dev, &blk, NULL))
		abort();
	add(w, 4, dev);
	if (virtio_net_create(&dev, w->loop, pair[0], &net, NULL))
		abort();
	add(w, 5, dev);
	if (virtio_fs_create(&dev, w->loop, "tag", "/nowhere/socket", NULL))
		abort();
	add(w, 6, dev);
}

static void begin(struct world *w, uint8_t *memory)
{
	*w = (struct world){.vm = {.mem = {.n_ranges = 1, .fd = -1}}};
	w->vm.mem.ranges[0] = (struct guest_mem_range){0, MEMORY_BYTES, memory, 0};
	pci_init(&w->bus, &w->vm);
	if (loop_create(&w->loop) || hop_init(&w->hop, w->loop))
		abort();
	add_devices(w);
	w->stop = (struct loop_source){.fd = eventfd(0, EFD_CLOEXEC), .ready = stop_ready};
	if (w->stop.fd < 0 || loop_add(w->loop, &w->stop, EPOLLIN) ||
	    pthread_create(&w->thread, NULL, serve, w))
		abort();
}

static void end(struct world *w)
{
	uint64_t one = 1;

	if (write(w->stop.fd, &one, sizeof(one)) < 0)
		abort();
	pthread_join(w->thread, NULL);
	hop_close(&w->hop);
	for (unsigned i = N_DEVICES; i-- > 0;)
		virtio_pci_destroy(w->devices[i]);
	expect_no_irqfds();
	close(w->image_fd);
	close(w->wire_fd);
	loop_remove(&w->stop);
	pil_close_p(&w->stop.fd);
	hop_finish(&w->hop);
	loop_destroy(w->loop);
}

struct step {
	uint8_t kind, device;
	uint16_t off;
	uint32_t value;
};

static uint64_t address(const struct step *s)
{
	unsigned slot = s->device % (N_DEVICES + 2);

	return s->kind & 0x40 ? LAYOUT_ECAM + ((uint64_t)slot << 15) + s->off % 0x1000
			      : LAYOUT_BARS + (uint64_t)slot * PCI_BAR_BYTES + s->off;
}

static void take(struct world *w, uint8_t *memory, const struct step *s)
{
	unsigned len = 1u << (s->kind >> 4 & 3);
	uint64_t value = s->value | (uint64_t)s->value << 32;

	switch (s->kind & 3) {
	case 0:
		bus_write(&w->vm.mmio, address(s), len, value);
		break;
	case 1:
		(void)bus_read(&w->vm.mmio, address(s), len);
		break;
	case 2:
		if (s->off <= MEMORY_BYTES - sizeof(value))
			memcpy(memory + s->off, &value, len);
		break;
	default:
		bus_write(&w->vm.mmio,
			  LAYOUT_BARS + s->device % 8 * PCI_BAR_BYTES + DOORBELLS + s->off % 32, 2,
			  0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static _Alignas(4096) uint8_t memory[MEMORY_BYTES];
	struct world w;

	memset(memory, 0, sizeof(memory));
	begin(&w, memory);
	for (unsigned n = 0; n < MAX_STEPS && size >= sizeof(struct step); n++) {
		struct step s;

		memcpy(&s, data, sizeof(s));
		data += sizeof(s);
		size -= sizeof(s);
		take(&w, memory, &s);
	}
	end(&w);
	return 0;
}
