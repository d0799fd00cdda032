/* SPDX-License-Identifier: Apache-2.0 */
#include "tiny.h"

enum { UART = 0x3f8, POWER = 0x600, LAPIC_SPURIOUS = 0xf0 };
#define LAPIC 0xfee00000u

struct idt_gate {
	uint16_t low, selector, type, mid;
	uint32_t high, reserved;
};
extern struct idt_gate idt[0x50];
extern const char interrupt_stubs[], fault_stub[];

static unsigned n_tests;

void *memset(void *to, int c, size_t n) /* the compiler may call these */
{
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(c) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *ret = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return ret;
}

static void put(const char *text)
{
	while (*text)
		out8(UART, (uint8_t)*text++);
}

static void put_number(unsigned n)
{
	if (n >= 10)
		put_number(n / 10);
	out8(UART, (uint8_t)('0' + n % 10));
}

void ok(bool good, const char *what)
{
	put(good ? "ok " : "not ok ");
	put_number(++n_tests);
	put(" - ");
	put(what);
	put("\n");
}

void say(const char *text)
{
	put("# ");
	put(text);
	put("\n");
}

void power_off(void)
{
	out8(POWER, 5 << 2 | 1 << 5);
}

void reset(void)
{
	out8(POWER + 2, 0x42);
}

void tiny_end(void)
{
	put("1..");
	put_number(n_tests);
	put("\n");
	power_off();
	for (;;)
		__asm__ volatile("hlt");
}

void triple_fault(void)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none;

	__asm__ volatile("lidt %0; ud2" : : "m"(none));
	__builtin_unreachable();
}

__attribute__((weak)) void tiny_ap_main(void)
{
}

unsigned pci_find_virtio(unsigned device_id)
{
	for (unsigned slot = 1; slot < 32; slot++)
		if (rd32(pci(slot, 0)) == ((0x1040 + device_id) << 16 | 0x1af4))
			return slot;
	return 0;
}

unsigned pci_find_cap(unsigned slot, unsigned id)
{
	unsigned at = rd8(pci(slot, 0x34));

	for (int i = 0; at && i < 48; i++, at = rd8(pci(slot, at + 1)))
		if (rd8(pci(slot, at)) == id)
			return at;
	return 0;
}

static void set_gate(unsigned vector, const char *stub)
{
	uint64_t addr = (uint64_t)stub;

	idt[vector] = (struct idt_gate){(uint16_t)addr,         8, 0x8e00, (uint16_t)(addr >> 16),
					(uint32_t)(addr >> 32), 0};
}

void interrupts_on(void)
{
	for (unsigned i = 0; i < 32; i++)
		set_gate(i, fault_stub);
	for (unsigned i = 0; i < 16; i++)
		set_gate(0x40 + i, interrupt_stubs + (size_t)16 * i);
	wr32(LAPIC + LAPIC_SPURIOUS, 0x1ff);
	__asm__ volatile("sti");
}

bool interrupt_came(unsigned i, unsigned n)
{
	uint64_t since = ticks();

	while (waiting(since) && interrupts[i] < n)
		;
	return interrupts[i] >= n;
}

void msix_set(unsigned slot, unsigned vector, unsigned i)
{
	uint64_t table = (rd32(pci(slot, 0x10)) & ~15u) +
			 (rd32(pci(slot, pci_find_cap(slot, 0x11) + 4)) & ~7u);

	wr32(table + vector * 16, LAPIC);
	wr32(table + vector * 16 + 4, 0);
	wr32(table + vector * 16 + 8, 0x40 + i);
	wr32(table + vector * 16 + 12, 0);
}

void msix_enable(unsigned slot)
{
	wr16(pci(slot, pci_find_cap(slot, 0x11) + 2), 0x8000);
}

bool vdev_find(struct vdev *v, unsigned device_id)
{
	unsigned slot = pci_find_virtio(device_id), at;
	uint64_t bar = rd32(pci(slot, 0x10)) & ~15u;

	*v = (struct vdev){.slot = slot};
	if (!slot)
		return false;
	for (at = rd8(pci(slot, 0x34)); at; at = rd8(pci(slot, at + 1))) {
		uint64_t addr = bar + rd32(pci(slot, at + 8));

		if (rd8(pci(slot, at)) != 9)
			continue;
		switch (rd8(pci(slot, at + 3))) {
		case 1:
			v->common = addr;
			break;
		case 2:
			v->doorbells = addr;
			break;
		case 3:
			v->isr = addr;
			break;
		case 4:
			v->config = addr;
			break;
		default:
			break;
		}
	}
	wr16(pci(slot, 4), 6);
	return v->common && v->doorbells && v->isr && v->config;
}

uint8_t vdev_status(const struct vdev *v)
{
	return rd8(v->common + 20);
}

void vdev_reset(const struct vdev *v)
{
	wr8(v->common + 20, 0);
}

bool vdev_negotiate(const struct vdev *v, uint64_t features)
{
	vdev_reset(v);
	wr8(v->common + 20, V_ACK | V_DRIVER);
	for (unsigned i = 0; i < 2; i++) {
		wr32(v->common + 8, i);
		wr32(v->common + 12, features >> 32 * i);
	}
	wr8(v->common + 20, V_ACK | V_DRIVER | V_FEATURES_OK);
	return vdev_status(v) & V_FEATURES_OK;
}

void vdev_driver_ok(const struct vdev *v)
{
	wr8(v->common + 20, V_ACK | V_DRIVER | V_FEATURES_OK | V_DRIVER_OK);
}

bool vdev_needs_reset(const struct vdev *v)
{
	uint64_t since = ticks();

	while (waiting(since))
		if (vdev_status(v) & V_NEEDS_RESET)
			return true;
	return false;
}

void vqueue_set_up(const struct vdev *v, struct vqueue *q, unsigned index, unsigned vector)
{
	memset(q, 0, sizeof(*q));
	q->index = index;
	wr16(v->common + 22, index);
	wr16(v->common + 24, VQ_SIZE);
	wr16(v->common + 26, vector);
	wr32(v->common + 32, (uint64_t)q->desc);
	wr32(v->common + 36, 0);
	wr32(v->common + 40, (uint64_t)&q->avail);
	wr32(v->common + 44, 0);
	wr32(v->common + 48, (uint64_t)&q->used);
	wr32(v->common + 52, 0);
	wr16(v->common + 28, 1);
}

void vqueue_offer(const struct vdev *v, struct vqueue *q, unsigned head)
{
	q->avail.ring[q->avail.idx % VQ_SIZE] = (uint16_t)head;
	__asm__ volatile("" : : : "memory");
	*(volatile uint16_t *)&q->avail.idx = (uint16_t)(q->avail.idx + 1);
	wr16(v->doorbells + q->index * 4, q->index);
}

bool vqueue_used(const struct vqueue *q, unsigned n)
{
	uint64_t since = ticks();

	while (waiting(since) && q->used.idx != n)
		;
	return q->used.idx == n;
}

const struct vkind vkinds[N_VKINDS] = {
	{"net", 1, 1, 12 + 60, 0, 0},  {"blk", 2, 0, 16, 512 + 1, 0}, /* reads the first sector */
	{"console", 3, 1, 8, 0, 0},    {"rng", 4, 0, 0, 32, 0},
	{"balloon", 5, 0, 4, 0, 0xff}, /* a page that does not exist */
	{"vsock", 19, 1, 44, 0, 0},    {"fs", 26, 1, 40, 16, 0},
};

void vkind_start(const struct vkind *k, const struct vdev *v, struct vqueue *q)
{
	vdev_negotiate(v, V_FEATURES | V_INDIRECT);
	vqueue_set_up(v, q, k->queue, 0xffff);
	wr16(v->common + 16, 0); /* says by vector 0 that it is broken */
	vdev_driver_ok(v);
}

bool vkind_works(const struct vkind *k, const struct vdev *v, struct vqueue *q)
{
	static uint8_t out[128], in[1024];
	unsigned n = 0;

	vkind_start(k, v, q);
	for (unsigned i = 0; i < sizeof(out); i++)
		out[i] = k->fill;
	if (k->out_bytes)
		q->desc[n++] = (struct vdesc){(uint64_t)out, k->out_bytes, 0, 0};
	if (k->in_bytes)
		q->desc[n++] = (struct vdesc){(uint64_t)in, k->in_bytes, D_WRITE, 0};
	if (n == 2) {
		q->desc[0].flags |= D_NEXT;
		q->desc[0].next = 1;
	}
	vqueue_offer(v, q, 0);
	return vqueue_used(q, 1) && !(vdev_status(v) & V_NEEDS_RESET);
}
