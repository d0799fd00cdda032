/* SPDX-License-Identifier: Apache-2.0
 *
 * tiny.h -- what a tiny guest has: a console to report on (TAP), registers, PCI, interrupts.
 *
 * A guest is one file of this folder with a tiny_main(); its first comment tells the runner how to
 * start it ("run: OPTIONS") and how it must end ("status: N").  KVM may emulate every instruction,
 * a microsecond each: a few thousand are fine, a million are not. */
#ifndef TINY_H
#define TINY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void tiny_main(void);
void tiny_ap_main(void); /* other processors; only halts unless the guest has its own */

/* "ok N - WHAT" or "not ok N - WHAT". */
void ok(bool good, const char *what);
void say(const char *text);                    /* "# TEXT" */
void tiny_end(void) __attribute__((noreturn)); /* the plan, then power off */
void power_off(void);
void reset(void);
void triple_fault(void) __attribute__((noreturn));

static inline void out8(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static inline uint8_t in8(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

#define TINY_ACCESS(bits)                                                                          \
	static inline uint##bits##_t rd##bits(uint64_t addr)                                       \
	{                                                                                          \
		return *(volatile uint##bits##_t *)addr;                                           \
	}                                                                                          \
	static inline void wr##bits(uint64_t addr, uint64_t v)                                     \
	{                                                                                          \
		*(volatile uint##bits##_t *)addr = (uint##bits##_t)v;                              \
	}
TINY_ACCESS(8)
TINY_ACCESS(16)
TINY_ACCESS(32)
TINY_ACCESS(64)

/* Address of register @reg of PCI slot @slot. */
static inline uint64_t pci(unsigned slot, unsigned reg)
{
	return 0xe0000000u + (slot << 15) + reg;
}
unsigned pci_find_virtio(unsigned device_id);      /* slot, 0: none */
unsigned pci_find_cap(unsigned slot, unsigned id); /* offset, 0: none */

static inline uint64_t ticks(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return low | (uint64_t)high << 32;
}
#define PATIENCE (UINT64_C(1) << 34) /* ticks: some seconds, for what must come */

/* while (waiting(since) && !condition): goes on for PATIENCE at most. */
static inline bool waiting(uint64_t since)
{
	__asm__ volatile("pause" : : : "memory");
	return ticks() - since < PATIENCE;
}

/* Interrupts 0 to 15 arrive at vectors 0x40 to 0x4f. */
extern volatile uint32_t interrupts[16];
void interrupts_on(void);
/* Waits a bounded while until interrupt @i was counted @n times. */
bool interrupt_came(unsigned i, unsigned n);
void msix_set(unsigned slot, unsigned vector, unsigned i); /* vector fires interrupt @i */
void msix_enable(unsigned slot);

/* A virtio device of PCI slot @slot. */
struct vdev {
	unsigned slot;
	uint64_t common, isr, config, doorbells; /* addresses */
};
enum { V_ACK = 1, V_DRIVER = 2, V_DRIVER_OK = 4, V_FEATURES_OK = 8, V_NEEDS_RESET = 64 };
#define V_FEATURES UINT64_C(0x100000000) /* VERSION_1 alone */
#define V_INDIRECT UINT64_C(0x010000000)

bool vdev_find(struct vdev *v, unsigned device_id);
uint8_t vdev_status(const struct vdev *v);
void vdev_reset(const struct vdev *v);
/* Up to FEATURES_OK; false if the device does not agree to @features. */
bool vdev_negotiate(const struct vdev *v, uint64_t features);
void vdev_driver_ok(const struct vdev *v);
bool vdev_needs_reset(const struct vdev *v); /* bounded wait */

/* A split queue of 8, one request at a time. */
struct vdesc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
enum { VQ_SIZE = 8, D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };
struct vqueue {
	_Alignas(16) struct vdesc desc[VQ_SIZE];
	struct {
		uint16_t flags, idx, ring[VQ_SIZE], event;
	} avail;
	_Alignas(8) volatile struct {
		uint16_t flags, idx;
		struct {
			uint32_t id, len;
		} ring[VQ_SIZE];
		uint16_t event;
	} used;
	unsigned index;
};
void vqueue_set_up(const struct vdev *v, struct vqueue *q, unsigned index, unsigned vector);
void vqueue_offer(const struct vdev *v, struct vqueue *q, unsigned head); /* and ring */
bool vqueue_used(const struct vqueue *q, unsigned n);                     /* bounded wait */

/* Every kind of device, the queue that its driver sends on, and a request on it that does no harm:
 * out_bytes of the byte fill, room for in_bytes. */
struct vkind {
	const char *name;
	unsigned id, queue;
	uint32_t out_bytes, in_bytes;
	uint8_t fill;
};
enum { N_VKINDS = 7 };
extern const struct vkind vkinds[N_VKINDS];
/* Resets the device, sets up the queue of its kind alone, and lets it run. */
void vkind_start(const struct vkind *k, const struct vdev *v, struct vqueue *q);
/* The same, and then makes the request: did the device take it, and not break? */
bool vkind_works(const struct vkind *k, const struct vdev *v, struct vqueue *q);

#endif
