/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: registers are served on the thread of the vCPU that touches them, under the
 * function's lock.  Two kinds reach into the device, which lives on the loop's thread: writes of
 * the status and accesses to the device's configuration hop over there, without the lock. Doorbells
 * are eventfds that KVM rings and the loop watches.  Interrupts come from any thread: the vectors
 * of the queues are atomic, the MSI-X table has a lock of its own.  What a vhost-user peer has to
 * say goes from its eventfd through KVM to the guest; we are woken only while the vector is masked.
 *
 * An eventfd that a vhost-user peer holds too is one that it can fill, empty, and make blocking, at
 * any moment.  So the loop never reads one (each ring is an edge), and never writes to one that is
 * lent; when the peer is gone, renew_fds() has others take their places.
 *
 * What a device works with never changes under it: features once FEATURES_OK is set, addresses and
 * size of a queue once it is enabled.  Only a reset, on the loop's thread, gives them back.
 *
 * The one BAR:	0x0000 common configuration	0x3000 doorbells, four bytes per queue
 *		0x1000 interrupt status		0x4000 MSI-X table
 *		0x2000 device configuration	0x5000 MSI-X pending bits */
#include "vmm/virtio_pci.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "vmm/msix.h"

enum {
	VENDOR = 0x1af4,
	FIRST_DEVICE = 0x1040,
	PAGE_COMMON = 0,
	PAGE_ISR,
	PAGE_DEVICE,
	PAGE_DOORBELLS,
	PAGE_MSIX_TABLE,
	PAGE_MSIX_PENDING,
	PAGE_BYTES = 0x1000,
	DOORBELL_BYTES = 4,
	OFTEN = 32,
	ISR_QUEUE = 1,
	ISR_CONFIG = 2,
};

struct bell {                      /* of a queue */
	struct loop_source source; /* an eventfd */
	struct virtio_pci *vp;
	unsigned q;
	unsigned rung;         /* by hand; under the lock */
	uint64_t doorbell_gpa; /* where KVM rings it; 0: nowhere; under the lock */
};

struct virtio_pci {
	struct pci_function fn; /* first: the bus knows us by it */
	struct virtio_transport transport;
	struct virtio_device *dev;
	struct hop *hop;
	struct loop *loop;
	struct msix msix;
	unsigned msix_cap, window_cap;          /* where these capabilities lie */
	struct bell kicks[VIRTIO_MAX_QUEUES];   /* rung by the driver, through KVM */
	struct bell calls[VIRTIO_MAX_QUEUES];   /* rung by a vhost-user peer; made when asked for;
						 * lines of msix; under the lock */
	atomic_uint status;                     /* VIRTIO_CONFIG_S_* */
	atomic_uint isr;                        /* ISR_*, while MSI-X is not enabled */
	atomic_uint generation;                 /* of the device's configuration */
	atomic_uint config_vector;              /* VIRTIO_MSI_NO_VECTOR: none */
	atomic_uint vectors[VIRTIO_MAX_QUEUES]; /* of the queues */
	struct log_limit limit;

	pthread_mutex_t lock; /* of what follows, and of dev->queues until they are enabled */
	uint32_t device_select, driver_select, queue_select;
	uint64_t driver_features;
};

static struct virtio_pci *of_device(const struct virtio_device *dev)
{
	return container_of(dev->transport, struct virtio_pci, transport);
}

static uint64_t offered(const struct virtio_pci *vp)
{
	return vp->dev->offered | 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_EVENT_IDX |
	       1ull << VIRTIO_RING_F_INDIRECT_DESC;
}

/* ---- what the device asks of us: any thread */

static void signal_vector(struct virtio_pci *vp, unsigned vector, unsigned isr_bit)
{
	if (!msix_signal(&vp->msix, vector))
		atomic_fetch_or(&vp->isr, isr_bit);
}

static void device_interrupt(struct virtio_device *dev, unsigned q)
{
	struct virtio_pci *vp = of_device(dev);

	signal_vector(vp, atomic_load(&vp->vectors[q]), ISR_QUEUE);
}

static void device_config_changed(struct virtio_device *dev)
{
	struct virtio_pci *vp = of_device(dev);

	atomic_fetch_add(&vp->generation, 1);
	if (atomic_load(&vp->status) & VIRTIO_CONFIG_S_DRIVER_OK)
		signal_vector(vp, atomic_load(&vp->config_vector), ISR_CONFIG);
}

static void device_broken(struct virtio_device *dev, const char *why)
{
	struct virtio_pci *vp = of_device(dev);

	if (atomic_fetch_or(&vp->status, VIRTIO_CONFIG_S_NEEDS_RESET) & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	if (log_allowed(&vp->limit))
		log_warn("virtio %s: the guest broke a rule (%s); it stands still until reset",
			 dev->ops->name, why);
	device_config_changed(dev);
}

/* #syscalls vcpu disk: write */
static void device_renotify(struct virtio_device *dev, unsigned q)
{
	uint64_t one = 1;

	if (write(of_device(dev)->kicks[q].source.fd, &one, sizeof(one)) < 0)
		log_dbg("virtio %s: %s", dev->ops->name, strerror(errno));
}

/* ---- on the loop's thread */

/* Each ring is an edge: the count behind it is of no interest and never read. */
#define BELL_EVENTS (EPOLLIN | EPOLLET)

static void call_rung(struct loop_source *source, uint32_t events)
{
	struct bell *bell = container_of(source, struct bell, source);

	(void)events;
	if (!msix_line_is_direct(&bell->vp->msix, bell->q))
		device_interrupt(bell->vp->dev, bell->q);
}

static void set_line_locked(struct virtio_pci *vp, unsigned q)
{
	msix_set_line(&vp->msix, q, vp->calls[q].source.fd, atomic_load(&vp->vectors[q]));
}

static int device_kick_fd(struct virtio_device *dev, unsigned q)
{
	struct bell *bell = &of_device(dev)->kicks[q];

	loop_remove(&bell->source);
	return bell->source.fd;
}

/* #syscalls: eventfd2 */
static int device_call_fd(struct virtio_device *dev, unsigned q)
{
	struct virtio_pci *vp = of_device(dev);
	struct bell *bell = &vp->calls[q];

	pthread_mutex_lock(&vp->lock);
	if (bell->source.fd < 0)
		bell->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (bell->source.fd >= 0 && !bell->source.loop &&
	    loop_add(vp->loop, &bell->source, BELL_EVENTS))
		pil_close_p(&bell->source.fd);
	set_line_locked(vp, q);
	pthread_mutex_unlock(&vp->lock);
	return bell->source.fd;
}

static void close_call(struct virtio_pci *vp, unsigned q)
{
	struct loop_source *call = &vp->calls[q].source;

	pthread_mutex_lock(&vp->lock);
	msix_set_line(&vp->msix, q, -1, 0);
	loop_remove(call);
	pil_close_p(&call->fd);
	pthread_mutex_unlock(&vp->lock);
}

/* Another eventfd under the same number, which processors may be writing to.
 * #syscalls: eventfd2 dup3 ioctl(1=KVM_IOEVENTFD) */
static void device_renew_fds(struct virtio_device *dev, unsigned q)
{
	struct virtio_pci *vp = of_device(dev);
	struct bell *kick = &vp->kicks[q];
	_auto_fd int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	pthread_mutex_lock(&vp->lock);
	if (kick->doorbell_gpa)
		vm_remove_doorbell(vp->msix.vm, kick->doorbell_gpa, kick->source.fd);
	kick->doorbell_gpa = kick->rung = 0;
	if (fd < 0 || dup3(fd, kick->source.fd, O_CLOEXEC) < 0)
		log_err("virtio %s: renew queue %u: %s", dev->ops->name, q, strerror(errno));
	pthread_mutex_unlock(&vp->lock);
	close_call(vp, q);
}

/* Takes back what was lent to a peer. */
static void reclaim_bells(struct virtio_pci *vp)
{
	for (unsigned q = 0; q < vp->dev->ops->n_queues; q++) {
		if (!vp->kicks[q].source.loop && vp->kicks[q].source.fd >= 0 &&
		    loop_add(vp->loop, &vp->kicks[q].source, BELL_EVENTS))
			log_err("virtio %s: watch queue %u: no memory", vp->dev->ops->name, q);
		close_call(vp, q);
	}
}

static void bell_rung(struct loop_source *source, uint32_t events)
{
	struct bell *bell = container_of(source, struct bell, source);
	struct virtio_device *dev = bell->vp->dev;

	(void)events;
	if (dev->active && dev->queues[bell->q].enabled &&
	    !(atomic_load(&bell->vp->status) & VIRTIO_CONFIG_S_NEEDS_RESET))
		dev->ops->notified(dev, bell->q);
}

static void reset(struct virtio_pci *vp)
{
	struct virtio_device *dev = vp->dev;

	if (dev->active)
		dev->ops->reset(dev);
	reclaim_bells(vp);
	pthread_mutex_lock(&vp->lock);
	dev->active = false;
	dev->acked = vp->driver_features = 0;
	vp->device_select = vp->driver_select = vp->queue_select = 0;
	for (unsigned q = 0; q < dev->ops->n_queues; q++) {
		virtq_reset(&dev->queues[q]);
		dev->queues[q].size = dev->queues[q].max_size;
		atomic_store(&vp->vectors[q], VIRTIO_MSI_NO_VECTOR);
	}
	atomic_store(&vp->config_vector, VIRTIO_MSI_NO_VECTOR);
	atomic_store(&vp->isr, 0);
	atomic_store(&vp->status, 0);
	pthread_mutex_unlock(&vp->lock);
}

static void activate(struct virtio_pci *vp)
{
	struct virtio_device *dev = vp->dev;
	bool good = true;

	pthread_mutex_lock(&vp->lock);
	dev->acked = vp->driver_features;
	dev->active = true; /* from here on the queues are the device's */
	pthread_mutex_unlock(&vp->lock);
	for (unsigned q = 0; q < dev->ops->n_queues; q++) {
		dev->queues[q].event_idx = dev->acked & 1ull << VIRTIO_RING_F_EVENT_IDX;
		dev->queues[q].indirect = dev->acked & 1ull << VIRTIO_RING_F_INDIRECT_DESC;
		if (dev->queues[q].enabled && !virtq_start(&dev->queues[q]))
			good = false;
	}
	if (dev->ops->activate)
		dev->ops->activate(dev);
	if (!good)
		device_broken(dev, "a queue lies outside of the memory");
}

/* Which of the status bits @value may be set now.  Once FEATURES_OK is, features are final. */
static unsigned accept_status(struct virtio_pci *vp, unsigned value)
{
	unsigned old = atomic_load(&vp->status), new = (value & 0x0f) & ~old;
	uint64_t features = vp->driver_features;

	if (features & ~offered(vp) || !(features & 1ull << VIRTIO_F_VERSION_1))
		new &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	if (!((old | new) & VIRTIO_CONFIG_S_FEATURES_OK))
		new &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	atomic_fetch_or(&vp->status, new | (value & VIRTIO_CONFIG_S_FAILED));
	return new;
}

static void set_status(struct virtio_pci *vp, unsigned value)
{
	unsigned new;

	if (value == 0) {
		reset(vp);
		return;
	}
	pthread_mutex_lock(&vp->lock); /* others may be writing features */
	new = accept_status(vp, value);
	pthread_mutex_unlock(&vp->lock);
	if (new &VIRTIO_CONFIG_S_DRIVER_OK)
		activate(vp);
}

struct access { /* of a register, by a vCPU that hops */
	struct virtio_pci *vp;
	bool is_write, is_status;
	uint64_t off, value;
	unsigned len;
};

static void do_access(void *arg)
{
	struct access *a = arg;
	struct virtio_device *dev = a->vp->dev;

	if (a->is_status)
		set_status(a->vp, (unsigned)a->value);
	else if (a->off > dev->config_bytes || a->len > dev->config_bytes - a->off)
		return;
	else if (!a->is_write)
		dev->ops->config_read(dev, a->off, &a->value, a->len);
	else if (dev->ops->config_write)
		dev->ops->config_write(dev, a->off, &a->value, a->len);
}

/* ---- on the vCPUs' threads */

static unsigned check_vector(const struct virtio_pci *vp, uint64_t value)
{
	return value < vp->msix.n ? (unsigned)value : VIRTIO_MSI_NO_VECTOR;
}

static uint64_t common_read(struct virtio_pci *vp, uint64_t off)
{
	struct virtio_device *dev = vp->dev;
	unsigned select = vp->queue_select;
	const struct virtq none = {0},
			   *q = select < dev->ops->n_queues ? &dev->queues[select] : &none;

	switch (off) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return vp->device_select;
	case VIRTIO_PCI_COMMON_DF:
		return vp->device_select < 2 ? (uint32_t)(offered(vp) >> 32 * vp->device_select)
					     : 0;
	case VIRTIO_PCI_COMMON_GFSELECT:
		return vp->driver_select;
	case VIRTIO_PCI_COMMON_GF:
		return vp->driver_select < 2
			       ? (uint32_t)(vp->driver_features >> 32 * vp->driver_select)
			       : 0;
	case VIRTIO_PCI_COMMON_MSIX:
		return atomic_load(&vp->config_vector);
	case VIRTIO_PCI_COMMON_NUMQ:
		return dev->ops->n_queues;
	case VIRTIO_PCI_COMMON_STATUS:
		return atomic_load(&vp->status);
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return atomic_load(&vp->generation) & 0xff;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return select;
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return q->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return q == &none ? VIRTIO_MSI_NO_VECTOR : atomic_load(&vp->vectors[select]);
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return q->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return select;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return (uint32_t)q->desc_gpa;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return q->desc_gpa >> 32;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return (uint32_t)q->avail_gpa;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return q->avail_gpa >> 32;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return (uint32_t)q->used_gpa;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return q->used_gpa >> 32;
	default:
		return 0;
	}
}

static void set_half(uint64_t *whole, bool high, uint64_t value)
{
	unsigned shift = high ? 32 : 0;

	*whole = (*whole & ~(0xffffffffull << shift)) | (value & 0xffffffff) << shift;
}

/* The registers of the selected queue; addresses and size are open until it is enabled. */
static void queue_write(struct virtio_pci *vp, uint64_t off, uint64_t value)
{
	struct virtio_device *dev = vp->dev;
	struct virtq *q = &dev->queues[vp->queue_select];

	if (off == VIRTIO_PCI_COMMON_Q_MSIX) {
		atomic_store(&vp->vectors[vp->queue_select], check_vector(vp, value));
		set_line_locked(vp, vp->queue_select);
	}
	if (dev->active || q->enabled)
		return;
	switch (off) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		if (value && value <= q->max_size && !(value & (value - 1)))
			q->size = (uint16_t)value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		q->enabled = value == 1 && atomic_load(&vp->status) & VIRTIO_CONFIG_S_FEATURES_OK;
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		set_half(&q->desc_gpa, off == VIRTIO_PCI_COMMON_Q_DESCHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		set_half(&q->avail_gpa, off == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		set_half(&q->used_gpa, off == VIRTIO_PCI_COMMON_Q_USEDHI, value);
		break;
	default:
		break;
	}
}

static void common_write(struct virtio_pci *vp, uint64_t off, uint64_t value)
{
	switch (off) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		vp->device_select = (uint32_t)value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		vp->driver_select = (uint32_t)value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		if (vp->driver_select < 2 &&
		    !(atomic_load(&vp->status) & VIRTIO_CONFIG_S_FEATURES_OK))
			set_half(&vp->driver_features, vp->driver_select == 1, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		atomic_store(&vp->config_vector, check_vector(vp, value & 0xffff));
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		vp->queue_select = value & 0xffff;
		break;
	default:
		if (vp->queue_select < vp->dev->ops->n_queues)
			queue_write(vp, off, value & 0xffffffff);
	}
}

static void ring(struct virtio_pci *vp, uint64_t reg)
{
	uint64_t q = reg / DOORBELL_BYTES;
	struct bell *kick;

	if (q >= vp->dev->ops->n_queues || reg % DOORBELL_BYTES)
		return;
	device_renotify(vp->dev, (unsigned)q);
	kick = &vp->kicks[q];
	pthread_mutex_lock(&vp->lock);
	if (++kick->rung == OFTEN) {
		kick->doorbell_gpa = pci_bar_gpa(&vp->fn) + PAGE_DOORBELLS * PAGE_BYTES + reg;
		if (vm_add_doorbell(vp->msix.vm, kick->doorbell_gpa, kick->source.fd))
			log_dbg("virtio %s: doorbell: %s", vp->dev->ops->name, strerror(errno));
	}
	pthread_mutex_unlock(&vp->lock);
}

static uint64_t bar_read(struct pci_function *fn, uint64_t off, unsigned len)
{
	struct virtio_pci *vp = container_of(fn, struct virtio_pci, fn);
	uint64_t reg = off % PAGE_BYTES, value = 0;
	struct access a = {.vp = vp, .off = reg, .len = len};

	switch (off / PAGE_BYTES) {
	case PAGE_COMMON:
		pthread_mutex_lock(&vp->lock);
		value = common_read(vp, reg);
		pthread_mutex_unlock(&vp->lock);
		return value;
	case PAGE_ISR:
		return reg ? 0 : atomic_exchange(&vp->isr, 0);
	case PAGE_DEVICE:
		hop_call(vp->hop, do_access, &a);
		return a.value;
	case PAGE_MSIX_TABLE:
		return msix_table_read(&vp->msix, reg, len);
	case PAGE_MSIX_PENDING:
		return msix_pending_read(&vp->msix, reg, len);
	default:
		return 0;
	}
}

static void bar_write(struct pci_function *fn, uint64_t off, unsigned len, uint64_t value)
{
	struct virtio_pci *vp = container_of(fn, struct virtio_pci, fn);
	uint64_t reg = off % PAGE_BYTES;
	struct access a = {.vp = vp, .off = reg, .len = len, .value = value, .is_write = true};

	switch (off / PAGE_BYTES) {
	case PAGE_COMMON:
		a.is_status = reg == VIRTIO_PCI_COMMON_STATUS;
		if (a.is_status) {
			a.value &= 0xff;
			hop_call(vp->hop, do_access, &a);
			break;
		}
		pthread_mutex_lock(&vp->lock);
		common_write(vp, reg, value);
		pthread_mutex_unlock(&vp->lock);
		break;
	case PAGE_DEVICE:
		hop_call(vp->hop, do_access, &a);
		break;
	case PAGE_DOORBELLS:
		ring(vp, reg);
		break;
	case PAGE_MSIX_TABLE:
		msix_table_write(&vp->msix, reg, len, value);
		break;
	default:
		break;
	}
}

/* The window in the configuration space (4.1.4.9): an access to its data is one to the BAR. */
static bool window(struct virtio_pci *vp, unsigned off, unsigned len, uint64_t *bar_off,
		   unsigned *bar_len)
{
	unsigned cap = vp->window_cap, data = cap + sizeof(struct virtio_pci_cap);

	*bar_off = pci_get(&vp->fn, cap + VIRTIO_PCI_CAP_OFFSET, 4);
	*bar_len = (unsigned)pci_get(&vp->fn, cap + VIRTIO_PCI_CAP_LENGTH, 4);
	return off < data + 4 && off + len > data &&
	       pci_get(&vp->fn, cap + VIRTIO_PCI_CAP_BAR, 1) == 0 &&
	       (*bar_len == 1 || *bar_len == 2 || *bar_len == 4) && *bar_off % *bar_len == 0 &&
	       *bar_off < PCI_BAR_BYTES;
}

static void config_read(struct pci_function *fn, unsigned off, unsigned len)
{
	struct virtio_pci *vp = container_of(fn, struct virtio_pci, fn);
	uint64_t bar_off;
	unsigned bar_len;

	if (window(vp, off, len, &bar_off, &bar_len))
		pci_set(fn, vp->window_cap + sizeof(struct virtio_pci_cap), bar_len,
			bar_read(fn, bar_off, bar_len));
}

static void config_written(struct pci_function *fn, unsigned off, unsigned len)
{
	struct virtio_pci *vp = container_of(fn, struct virtio_pci, fn);
	uint64_t bar_off;
	unsigned bar_len;

	if (off < vp->msix_cap + 4 && off + len > vp->msix_cap)
		msix_control_write(&vp->msix,
				   (uint16_t)pci_get(fn, vp->msix_cap + PCI_MSIX_FLAGS, 2));
	if (window(vp, off, len, &bar_off, &bar_len))
		bar_write(fn, bar_off, bar_len,
			  pci_get(fn, vp->window_cap + sizeof(struct virtio_pci_cap), bar_len));
}

/* ---- set-up */

static void add_capabilities(struct virtio_pci *vp)
{
	static const struct {
		uint8_t type, page;
	} areas[] = {{VIRTIO_PCI_CAP_COMMON_CFG, PAGE_COMMON},
		     {VIRTIO_PCI_CAP_ISR_CFG, PAGE_ISR},
		     {VIRTIO_PCI_CAP_DEVICE_CFG, PAGE_DEVICE}};
	struct virtio_pci_notify_cap bells = {
		.cap = {.cap_vndr = PCI_CAP_ID_VNDR,
			.cap_len = sizeof(bells),
			.cfg_type = VIRTIO_PCI_CAP_NOTIFY_CFG,
			.offset = PAGE_DOORBELLS * PAGE_BYTES,
			.length = PAGE_BYTES},
		.notify_off_multiplier = DOORBELL_BYTES,
	};
	struct virtio_pci_cfg_cap win = {.cap = {.cap_vndr = PCI_CAP_ID_VNDR,
						 .cap_len = sizeof(win),
						 .cfg_type = VIRTIO_PCI_CAP_PCI_CFG}};
	uint8_t msix[12] = {PCI_CAP_ID_MSIX, 0, (uint8_t)(vp->msix.n - 1)};
	uint32_t table = PAGE_MSIX_TABLE * PAGE_BYTES, pending = PAGE_MSIX_PENDING * PAGE_BYTES;

	for (size_t i = 0; i < ARRAY_SIZE(areas); i++) {
		struct virtio_pci_cap cap = {.cap_vndr = PCI_CAP_ID_VNDR,
					     .cap_len = sizeof(cap),
					     .cfg_type = areas[i].type,
					     .offset = areas[i].page * (uint32_t)PAGE_BYTES,
					     .length = PAGE_BYTES};

		pci_add_capability(&vp->fn, &cap, sizeof(cap));
	}
	pci_add_capability(&vp->fn, &bells, sizeof(bells));
	vp->window_cap = pci_add_capability(&vp->fn, &win, sizeof(win));
	vp->fn.writable[vp->window_cap + VIRTIO_PCI_CAP_BAR] = 0xff;
	memset(vp->fn.writable + vp->window_cap + VIRTIO_PCI_CAP_OFFSET, 0xff,
	       sizeof(win) - VIRTIO_PCI_CAP_OFFSET);
	memcpy(msix + PCI_MSIX_TABLE, &table, 4);
	memcpy(msix + PCI_MSIX_PBA, &pending, 4);
	vp->msix_cap = pci_add_capability(&vp->fn, msix, sizeof(msix));
	vp->fn.writable[vp->msix_cap + PCI_MSIX_FLAGS + 1] = (MSIX_ENABLE | MSIX_MASK_ALL) >> 8;
}

/* #syscalls: eventfd2 */
static int add_doorbells(struct virtio_pci *vp)
{
	int ret = 0;

	for (unsigned q = 0; q < vp->dev->ops->n_queues && !ret; q++) {
		struct loop_source *source = &vp->kicks[q].source;

		source->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (source->fd < 0)
			return -errno;
		ret = loop_add(vp->loop, source, BELL_EVENTS);
	}
	return ret;
}

static void init_queues(struct virtio_pci *vp, const struct vm *vm)
{
	for (unsigned q = 0; q < VIRTIO_MAX_QUEUES; q++) {
		vp->dev->queues[q].mem = &vm->mem;
		vp->kicks[q] = (struct bell){{.fd = -1, .ready = bell_rung}, .vp = vp, .q = q};
		vp->calls[q] = (struct bell){{.fd = -1, .ready = call_rung}, .vp = vp, .q = q};
	}
}

int virtio_pci_create(struct virtio_pci **out, struct virtio_device *dev, struct vm *vm,
		      struct pci_bus *bus, struct loop *loop, struct hop *hop, struct pil_err *err)
{
	struct virtio_pci *vp = calloc(1, sizeof(*vp));
	int ret;

	if (!vp) {
		dev->ops->destroy(dev);
		return pil_err_set(err, ENOMEM, "add device '%s'", dev->ops->name);
	}
	vp->dev = dev;
	vp->hop = hop;
	vp->loop = loop;
	vp->transport = (struct virtio_transport){.interrupt = device_interrupt,
						  .config_changed = device_config_changed,
						  .broken = device_broken,
						  .renotify = device_renotify,
						  .kick_fd = device_kick_fd,
						  .call_fd = device_call_fd,
						  .renew_fds = device_renew_fds};
	dev->transport = &vp->transport;
	init_queues(vp, vm);
	pthread_mutex_init(&vp->lock, NULL);
	msix_init(&vp->msix, vm, dev->ops->n_queues + 1);
	pci_function_init(&vp->fn, VENDOR, (uint16_t)(FIRST_DEVICE + dev->ops->device_id),
			  dev->ops->pci_class);
	vp->fn.bar_read = bar_read;
	vp->fn.bar_write = bar_write;
	vp->fn.config_read = config_read;
	vp->fn.config_written = config_written;
	add_capabilities(vp);
	reset(vp);
	ret = pci_add(bus, &vp->fn);
	if (!ret)
		ret = add_doorbells(vp);
	if (ret) {
		virtio_pci_destroy(vp);
		return pil_err_set(err, -ret, "add device '%s'", dev->ops->name);
	}
	*out = vp;
	return 0;
}

void virtio_pci_destroy(struct virtio_pci *vp)
{
	if (!vp)
		return;
	reset(vp);
	for (unsigned q = 0; q < VIRTIO_MAX_QUEUES; q++) {
		loop_remove(&vp->kicks[q].source);
		pil_close_p(&vp->kicks[q].source.fd);
	}
	vp->dev->ops->destroy(vp->dev);
	free(vp);
}
