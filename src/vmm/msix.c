/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a vector is signalled by this process, or by KVM itself through a line.
 * When the guest changes a mask or an address, vectors_changed_locked() sends what was pending and
 * makes each line direct or not.  No signal is lost between the two: an eventfd whose line is cut
 * keeps its count, and a masked vector has its pending bit. */
#include "vmm/msix.h"

#include <assert.h>
#include <string.h>

#include "base/log.h"

enum { VECTOR_MASKED = 1 };

void msix_init(struct msix *msix, struct vm *vm, unsigned n)
{
	assert(n <= MSIX_MAX_VECTORS);
	*msix = (struct msix){.vm = vm, .n = n};
	pthread_mutex_init(&msix->lock, NULL);
	for (unsigned i = 0; i < n; i++)
		msix->vectors[i].control = VECTOR_MASKED;
	for (unsigned i = 0; i < MSIX_MAX_LINES; i++)
		msix->lines[i] = (struct msix_line){.event_fd = -1, .gsi = -1};
}

static bool masked_locked(const struct msix *msix, unsigned i)
{
	return (msix->control & (MSIX_ENABLE | MSIX_MASK_ALL)) != MSIX_ENABLE ||
	       msix->vectors[i].control & VECTOR_MASKED;
}

static void send_pending_locked(struct msix *msix)
{
	for (unsigned i = 0; i < msix->n; i++) {
		if (!(msix->pending & 1u << i) || masked_locked(msix, i))
			continue;
		msix->pending &= ~(1u << i);
		vm_signal_msi(msix->vm, msix->vectors[i].addr, msix->vectors[i].data);
	}
}

static void cut_line_locked(struct msix *msix, struct msix_line *line)
{
	if (line->gsi >= 0)
		vm_remove_irqfd(msix->vm, line->event_fd, line->gsi);
	line->gsi = -1;
}

/* Makes the line direct if it can be: it has an eventfd, and a vector that may be sent. */
static void update_line_locked(struct msix *msix, struct msix_line *line)
{
	uint64_t addr;
	uint32_t data;

	if (line->event_fd < 0 || line->vector >= msix->n || masked_locked(msix, line->vector)) {
		cut_line_locked(msix, line);
		return;
	}
	addr = msix->vectors[line->vector].addr;
	data = msix->vectors[line->vector].data;
	if (line->gsi >= 0 && line->addr == addr && line->data == data)
		return;
	cut_line_locked(msix, line);
	line->addr = addr;
	line->data = data;
	line->gsi = vm_add_irqfd(msix->vm, line->event_fd, addr, data);
	if (line->gsi < 0)
		log_dbg("msix: no irqfd: %s", strerror(-line->gsi));
}

/* The guest has changed which vectors may be sent, or what they are. */
static void vectors_changed_locked(struct msix *msix)
{
	send_pending_locked(msix);
	for (unsigned i = 0; i < MSIX_MAX_LINES; i++)
		update_line_locked(msix, &msix->lines[i]);
}

void msix_set_line(struct msix *msix, unsigned i, int event_fd, unsigned vector)
{
	struct msix_line *line = &msix->lines[i];

	pthread_mutex_lock(&msix->lock);
	if (event_fd != line->event_fd)
		cut_line_locked(msix, line);
	line->event_fd = event_fd;
	line->vector = vector;
	update_line_locked(msix, line);
	pthread_mutex_unlock(&msix->lock);
}

bool msix_line_is_direct(struct msix *msix, unsigned i)
{
	bool direct;

	pthread_mutex_lock(&msix->lock);
	direct = msix->lines[i].gsi >= 0;
	pthread_mutex_unlock(&msix->lock);
	return direct;
}

bool msix_signal(struct msix *msix, unsigned i)
{
	bool enabled;

	pthread_mutex_lock(&msix->lock);
	enabled = msix->control & MSIX_ENABLE;
	if (enabled && i < msix->n) {
		msix->pending |= 1u << i;
		send_pending_locked(msix);
	}
	pthread_mutex_unlock(&msix->lock);
	return enabled;
}

/* Entries are read and written in aligned halves or quarters, as the standard wants it. */
static bool good_access(const struct msix *msix, uint64_t off, unsigned len)
{
	return (len == 4 || len == 8) && off % len == 0 && off / MSIX_ENTRY_BYTES < msix->n;
}

uint64_t msix_table_read(struct msix *msix, uint64_t off, unsigned len)
{
	uint64_t value = 0;

	if (!good_access(msix, off, len))
		return 0;
	pthread_mutex_lock(&msix->lock);
	memcpy(&value, (uint8_t *)msix->vectors + off, len);
	pthread_mutex_unlock(&msix->lock);
	return value;
}

void msix_table_write(struct msix *msix, uint64_t off, unsigned len, uint64_t value)
{
	static_assert(sizeof(msix->vectors[0]) == MSIX_ENTRY_BYTES, "entry of the MSI-X table");

	if (!good_access(msix, off, len))
		return;
	pthread_mutex_lock(&msix->lock);
	memcpy((uint8_t *)msix->vectors + off, &value, len);
	vectors_changed_locked(msix);
	pthread_mutex_unlock(&msix->lock);
}

uint64_t msix_pending_read(struct msix *msix, uint64_t off, unsigned len)
{
	uint64_t value = 0;

	(void)len;
	if (off != 0)
		return 0;
	pthread_mutex_lock(&msix->lock);
	value = msix->pending;
	pthread_mutex_unlock(&msix->lock);
	return value;
}

void msix_control_write(struct msix *msix, uint16_t value)
{
	pthread_mutex_lock(&msix->lock);
	msix->control = value & (MSIX_ENABLE | MSIX_MASK_ALL);
	vectors_changed_locked(msix);
	pthread_mutex_unlock(&msix->lock);
}
