/* SPDX-License-Identifier: Apache-2.0
 *
 * virtio.c -- cases of a microVM's root as the driver of its own cards, who keeps no rule.
 *
 * Theory of operation: a card is taken from the kernel's driver; its registers are mapped by sysfs,
 * and its first queue lies in two pages of ours, whose places in memory /proc/self/pagemap tells.
 * So the monitor is given what no driver of Linux would.  Disks and the vsock stay: the machine
 * lives by them.  What the monitor does shows outside: it must go on, and so must the machine. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hostile.h"

enum { PAGE = 4096, QUEUE = 16, AVAIL_AT = 512, USED_AT = 1024, BARS = 6 };

struct card {
	char folder[300];
	uint8_t config[256];
	volatile uint8_t *bar[BARS];
	volatile struct virtio_pci_common_cfg *common;
	volatile uint16_t *notify;
	uint64_t notify_at;   /* in memory */
	uint8_t *ring, *data; /* a page each */
	uint64_t ring_gpa, data_gpa;
};

/* Where a page of ours is in the machine's memory; 0: nobody says so. */
static uint64_t gpa_of(const void *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (fd < 0 || pread(fd, &entry, 8, (off_t)((uintptr_t)page / PAGE * 8)) != 8)
		entry = 0;
	if (fd >= 0)
		close(fd);
	return (entry & ((1ull << 55) - 1)) * PAGE;
}

static uint8_t *new_page(uint64_t *gpa)
{
	uint8_t *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE, -1, 0);

	if (page == MAP_FAILED)
		return NULL;
	memset(page, 0, PAGE);
	*gpa = gpa_of(page);
	return page;
}

static void write_to(const struct card *card, const char *file, const char *text)
{
	char path[330];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", card->folder, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		hostile_note("%s: %s", path, strerrorname_np(errno));
	if (fd >= 0)
		close(fd);
}

static volatile uint8_t *bar_of(struct card *card, int bar)
{
	char path[330];
	struct stat st;
	void *p;
	int fd;

	if (bar >= BARS || card->bar[bar])
		return bar < BARS ? card->bar[bar] : NULL;
	snprintf(path, sizeof(path), "%s/resource%d", card->folder, bar);
	fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		return NULL;
	p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	card->bar[bar] = p == MAP_FAILED ? NULL : p;
	return card->bar[bar];
}

static uint32_t get32(const uint8_t *from)
{
	uint32_t value;

	memcpy(&value, from, 4);
	return value;
}

static bool find_registers(struct card *card)
{
	for (unsigned at = card->config[0x34], n = 0; at && at < 240 && n < 20; n++) {
		const uint8_t *cap = card->config + at;
		volatile uint8_t *bar = cap[0] == 9 ? bar_of(card, cap[4]) : NULL;

		if (bar && cap[3] == VIRTIO_PCI_CAP_COMMON_CFG)
			card->common = (volatile void *)(bar + get32(cap + 8));
		if (bar && cap[3] == VIRTIO_PCI_CAP_NOTIFY_CFG) {
			card->notify = (volatile void *)(bar + get32(cap + 8));
			card->notify_at =
				(get32(card->config + 0x10 + 4 * cap[4]) & ~15u) + get32(cap + 8);
		}
		at = cap[1];
	}
	return card->common && card->notify;
}

/* Takes the card from the kernel. */
static bool take(struct card *card, const char *name)
{
	char path[330];
	int fd;

	snprintf(card->folder, sizeof(card->folder), "/sys/bus/pci/devices/%s", name);
	snprintf(path, sizeof(path), "%s/config", card->folder);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, card->config, sizeof(card->config)) < 64)
		return false;
	close(fd);
	if ((get32(card->config) & 0xffff) != 0x1af4)
		return false;
	switch ((get32(card->config) >> 16) - 0x1040) {
	case VIRTIO_ID_BLOCK:
	case VIRTIO_ID_VSOCK:
		return false;
	}
	write_to(card, "driver/unbind", name);
	write_to(card, "enable", "1");
	card->ring = new_page(&card->ring_gpa);
	card->data = new_page(&card->data_gpa);
	return card->ring && card->data && card->ring_gpa && find_registers(card);
}

/* A driver that keeps the rules up to here. */
static void set_up(struct card *card, uint64_t features, uint16_t size, uint64_t ring)
{
	volatile struct virtio_pci_common_cfg *c = card->common;

	c->device_status = 0;
	c->device_status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	for (uint32_t i = 0; i < 2; i++) {
		c->guest_feature_select = i;
		c->guest_feature = (uint32_t)(features >> (32 * i));
	}
	c->device_status =
		VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;
	c->queue_select = 0;
	c->queue_size = size;
	c->queue_desc_lo = (uint32_t)ring;
	c->queue_desc_hi = (uint32_t)(ring >> 32);
	c->queue_avail_lo = (uint32_t)(ring + AVAIL_AT);
	c->queue_avail_hi = (uint32_t)((ring + AVAIL_AT) >> 32);
	c->queue_used_lo = (uint32_t)(ring + USED_AT);
	c->queue_used_hi = (uint32_t)((ring + USED_AT) >> 32);
	c->queue_enable = 1;
	c->device_status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
			   VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
}

static const uint64_t usual = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC;

static void offer(struct card *card, struct vring_desc desc, uint16_t head, uint16_t idx)
{
	volatile uint16_t *avail = (volatile void *)(card->ring + AVAIL_AT);

	memcpy(card->ring, &desc, sizeof(desc));
	avail[2] = head;
	__sync_synchronize();
	avail[1] = idx;
	*card->notify = 0;
	usleep(20000);
}

/* ---- what is given to each card ---- */

static void offer_desc(struct card *card, const struct vring_desc *desc)
{
	set_up(card, usual, QUEUE, card->ring_gpa);
	offer(card, *desc, 0, 1);
	offer(card,
	      (struct vring_desc){desc->addr, desc->len, desc->flags | VRING_DESC_F_WRITE,
				  desc->next},
	      0, 2);
}

static void past_memory(struct card *card)
{
	offer_desc(card, &(struct vring_desc){1ull << 40, 64, 0, 0});
}

static void at_registers(struct card *card)
{
	offer_desc(card, &(struct vring_desc){card->notify_at, 64, 0, 0});
}

static void wraps(struct card *card)
{
	offer_desc(card, &(struct vring_desc){UINT64_MAX - 7, 64, 0, 0});
}

static void huge(struct card *card)
{
	offer_desc(card, &(struct vring_desc){card->data_gpa, UINT32_MAX, 0, 0});
}

static void empty(struct card *card)
{
	offer_desc(card, &(struct vring_desc){card->data_gpa, 0, 0, 0});
}

static void loop(struct card *card)
{
	offer_desc(card, &(struct vring_desc){card->data_gpa, 64, VRING_DESC_F_NEXT, 0});
}

static void next_outside(struct card *card)
{
	offer_desc(card, &(struct vring_desc){card->data_gpa, 64, VRING_DESC_F_NEXT, 0xfff0});
}

static void indirect_outside(struct card *card)
{
	offer_desc(card, &(struct vring_desc){1ull << 45, 64, VRING_DESC_F_INDIRECT, 0});
}

static void indirect_odd(struct card *card)
{
	offer_desc(card, &(struct vring_desc){card->data_gpa, 17, VRING_DESC_F_INDIRECT, 0});
}

static void indirect_long(struct card *card)
{
	offer_desc(card,
		   &(struct vring_desc){card->data_gpa, 0xfffffff0, VRING_DESC_F_INDIRECT, 0});
}

static void indirect_nested(struct card *card)
{
	const struct vring_desc inner = {card->data_gpa, 16, VRING_DESC_F_INDIRECT, 0};

	memcpy(card->data, &inner, sizeof(inner));
	offer_desc(card, &inner);
}

static void ring_in_itself(struct card *card) /* used ring, descriptors and data in one place */
{
	offer_desc(card, &(struct vring_desc){card->ring_gpa, PAGE, 0, 0});
}

static void head_outside(struct card *card)
{
	set_up(card, usual, QUEUE, card->ring_gpa);
	offer(card, (struct vring_desc){card->data_gpa, 64, 0, 0}, 0xffff, 1);
}

static void index_jumps(struct card *card)
{
	set_up(card, usual, QUEUE, card->ring_gpa);
	offer(card, (struct vring_desc){card->data_gpa, 64, 0, 0}, 0, 40000);
	offer(card, (struct vring_desc){card->data_gpa, 64, 0, 0}, 0, 39999);
}

static void sizes(struct card *card)
{
	static const uint16_t all[] = {0, 1, 3, 255, 32768, 65535};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		set_up(card, usual, all[i], card->ring_gpa);
		offer(card, (struct vring_desc){card->data_gpa, 64, 0, 0}, 0, 1);
	}
}

static void queue_outside(struct card *card)
{
	static const uint64_t all[] = {1ull << 40, UINT64_MAX - 15, UINT64_MAX - 1030, 0xd0000000};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		set_up(card, usual, QUEUE, all[i]);
		*card->notify = 0;
	}
}

static void queue_askew(struct card *card)
{
	for (unsigned by = 1; by < 16; by += 2) {
		set_up(card, usual, QUEUE, card->ring_gpa + by);
		*card->notify = 0;
	}
}

static void features(struct card *card)
{
	set_up(card, UINT64_MAX, QUEUE, card->ring_gpa);
	offer(card, (struct vring_desc){card->data_gpa, 64, 0, 0}, 0, 1);
	set_up(card, 0, QUEUE, card->ring_gpa);
	offer(card, (struct vring_desc){card->data_gpa, 64, 0, 0}, 0, 1);
}

static void states(struct card *card)
{
	for (unsigned i = 0; i < 2000; i++) {
		card->common->device_status = (uint8_t)(i * 37);
		card->common->queue_select = (uint16_t)(i * 7919);
		card->common->queue_enable = (uint16_t)i;
		card->common->queue_msix_vector = (uint16_t)(i * 31);
		card->common->msix_config = (uint16_t)(i * 17);
		*card->notify = (uint16_t)(i * 13);
	}
}

static void resets(struct card *card)
{
	for (unsigned i = 0; i < 100; i++) {
		set_up(card, usual, QUEUE, card->ring_gpa);
		*card->notify = 0;
		card->common->device_status = 0;
		*card->notify = 0;
	}
}

static const struct {
	const char *name;
	void (*give)(struct card *card);
} gifts[] = {
	{"past_memory", past_memory},
	{"at_registers", at_registers},
	{"wraps", wraps},
	{"huge", huge},
	{"empty", empty},
	{"loop", loop},
	{"next_outside", next_outside},
	{"indirect_outside", indirect_outside},
	{"indirect_odd", indirect_odd},
	{"indirect_long", indirect_long},
	{"indirect_nested", indirect_nested},
	{"ring_in_itself", ring_in_itself},
	{"head_outside", head_outside},
	{"index_jumps", index_jumps},
	{"sizes", sizes},
	{"queue_outside", queue_outside},
	{"queue_askew", queue_askew},
	{"features", features},
	{"states", states},
	{"resets", resets},
};

static int drive(const struct hostile_case *c)
{
	DIR *dir = opendir("/sys/bus/pci/devices");
	const struct dirent *e;
	int n = 0;

	while (dir && (e = readdir(dir))) {
		struct card card = {0};

		if (e->d_name[0] == '.' || !take(&card, e->d_name))
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(gifts); i++)
			if (!strcmp(gifts[i].name, c->arg))
				gifts[i].give(&card);
		card.common->device_status = 0;
		n++;
	}
	if (dir)
		closedir(dir);
	hostile_note("%d cards", n);
	return n ? n : SKIPPED;
}

#define CARD(what)                                                                                 \
	{                                                                                          \
		"card_" what, ON_KVM, drive, {0}, what                                             \
	}

static const struct hostile_case cases[] = {
	CARD("past_memory"),     CARD("at_registers"),
	CARD("wraps"),           CARD("huge"),
	CARD("empty"),           CARD("loop"),
	CARD("next_outside"),    CARD("indirect_outside"),
	CARD("indirect_odd"),    CARD("indirect_long"),
	CARD("indirect_nested"), CARD("ring_in_itself"),
	CARD("head_outside"),    CARD("index_jumps"),
	CARD("sizes"),           CARD("queue_outside"),
	CARD("queue_askew"),     CARD("features"),
	CARD("states"),          CARD("resets"),
};

const struct hostile_family hostile_virtio = {cases, ARRAY_SIZE(cases)};
