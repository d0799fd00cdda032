/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast the vsock device moves bytes, without a guest: one thread plays the driver (eventfds for
 * doorbell and interrupt, as KVM would have them), one runs the device's loop, one is the program
 * of the host.  Beside each figure is that of a bare Unix socket between two threads.
 *
 *	vsock_speed [SECONDS [spread]]		spread: each thread on a processor of its own
 */
#include <linux/virtio_vsock.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/loop.h"
#include "lib/vdriver.h"
#include "virtio/virtio_vsock.h"

enum {
	RX,
	TX,
	HDR = sizeof(struct virtio_vsock_hdr),
	RX_BUFS = 256,
	TX_BUFS = 64,
	RX_BYTES = 4096,
	BULK = 64 << 10,
	SMALL = 64,
	PORT = 1000,
	ROOM = 256 << 10, /* the guest's credit, as Linux gives it */
};

enum what { ROUND_TRIPS, TO_HOST, TO_GUEST, NUM_WHATS };

static const char *const what_str[] = {"round trips of 64 bytes", "to the host", "to the guest"};

struct rig;

struct bell {
	struct loop_source source;
	struct rig *rig;
	unsigned q;
};

struct rig {
	struct vdriver d;
	struct loop *loop;
	struct virtio_device *dev;
	struct bell kicks[2];
	struct loop_source stop;
	int irq_fd;
	struct sockaddr_un addr;
	int listen_fd;
	uint64_t tx_gpa;
	unsigned tx_next;
	uint16_t tx_told; /* avail index at the last kick */
	uint32_t sent, fwd, got, peer_fwd, peer_alloc;
	unsigned kicked, interrupted;
};

static bool spread;

/* The driver, the device and the program each stay on one processor, as they would with a guest. */
static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % (int)sysconf(_SC_NPROCESSORS_ONLN), &set);
	if (spread)
		pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void ring_bell(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, 8) != 8)
		abort();
}

static void hear(int fd)
{
	uint64_t n;

	if (read(fd, &n, 8) != 8)
		abort();
}

/* ---- the device's thread */

static void interrupt(struct virtio_device *dev, unsigned q)
{
	struct rig *r = container_of(dev->transport_data, struct rig, d);

	(void)q;
	r->interrupted++;
	ring_bell(r->irq_fd);
}

static void renotify(struct virtio_device *dev, unsigned q)
{
	ring_bell(container_of(dev->transport_data, struct rig, d)->kicks[q].source.fd);
}

static void broken(struct virtio_device *dev, const char *why)
{
	(void)dev;
	fprintf(stderr, "broken: %s\n", why);
	abort();
}

static const struct virtio_transport transport = {.interrupt = interrupt,
						  .renotify = renotify,
						  .broken = broken};

static void on_kick(struct loop_source *source, uint32_t events)
{
	struct bell *bell = container_of(source, struct bell, source);

	(void)events;
	bell->rig->dev->ops->notified(bell->rig->dev, bell->q);
}

static void on_stop(struct loop_source *source, uint32_t events)
{
	(void)events;
	loop_stop(source->loop, 0);
}

static void *device_thread(void *arg)
{
	struct rig *r = arg;

	stay_on(1);
	loop_run(r->loop);
	return NULL;
}

/* ---- the driver's */

static void kick(struct rig *r, unsigned q, uint16_t old)
{
	struct vdriver_queue *vq = &r->d.queues[q];
	uint16_t new = vq->avail->idx;
	uint16_t event;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	event = *(volatile uint16_t *)&vq->used->ring[r->dev->queues[q].size];
	if (!vring_need_event(event, new, old))
		return;
	r->kicked++;
	ring_bell(r->kicks[q].source.fd);
}

static uint16_t tx_used(struct rig *r)
{
	return __atomic_load_n(&r->d.queues[TX].used->idx, __ATOMIC_ACQUIRE);
}

/* Asks for an interrupt at the next used buffer of @q. */
static void want_interrupt(struct rig *r, unsigned q, uint16_t event)
{
	volatile uint16_t *at = &r->d.queues[q].avail->ring[r->dev->queues[q].size];

	*at = event;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void send_packet(struct rig *r, uint16_t op, uint32_t len)
{
	uint16_t old = r->d.queues[TX].avail->idx;
	uint64_t gpa = r->tx_gpa + (uint64_t)(r->tx_next++ % TX_BUFS) * (BULK + HDR);
	struct vdriver_buf bufs[] = {{gpa, HDR, false}, {gpa + HDR, len, false}};
	struct virtio_vsock_hdr hdr = {
		.src_cid = VIRTIO_VSOCK_GUEST_CID,
		.dst_cid = 2,
		.src_port = PORT,
		.dst_port = PORT,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.len = len,
		.buf_alloc = ROOM,
		.fwd_cnt = r->got,
	};

	r->fwd = r->got;
	while ((uint16_t)(old - tx_used(r)) >= TX_BUFS) {
		want_interrupt(r, TX, (uint16_t)(old - TX_BUFS / 2));
		if ((uint16_t)(old - tx_used(r)) >= TX_BUFS)
			hear(r->irq_fd);
	}
	memcpy(vdriver_at(&r->d, gpa), &hdr, HDR);
	vdriver_add(&r->d, TX, bufs, len ? 2 : 1);
	r->sent += len;
	kick(r, TX, old);
}

/* Takes what has come; false: nothing.  The buffers go back. */
static bool take(struct rig *r)
{
	uint16_t old = r->d.queues[RX].avail->idx;
	struct vring_used_elem used;
	struct virtio_vsock_hdr hdr;
	unsigned n;

	for (n = 0; n < RX_BUFS / 2 && vdriver_used(&r->d, RX, &used); n++) {
		memcpy(&hdr, vdriver_at(&r->d, r->d.queues[RX].desc[used.id].addr), HDR);
		r->peer_alloc = hdr.buf_alloc;
		r->peer_fwd = hdr.fwd_cnt;
		if (hdr.op == VIRTIO_VSOCK_OP_RW)
			r->got += hdr.len;
		vdriver_offer(&r->d, RX, (uint16_t)used.id);
	}
	if (n)
		kick(r, RX, old);
	if (r->got - r->fwd >= ROOM / 2)
		send_packet(r, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	return n;
}

static void wait_for_more(struct rig *r)
{
	while (!take(r)) {
		want_interrupt(r, RX, r->d.queues[RX].last_used);
		if (take(r))
			return;
		hear(r->irq_fd);
	}
}

/* ---- the host's program */

struct program {
	enum what what;
	int fd;
	volatile bool stop;
};

static void *host_thread(void *arg)
{
	struct program *p = arg;
	static char buf[BULK];
	ssize_t n = 1;

	stay_on(2);
	while (n > 0 && !p->stop) {
		if (p->what == TO_GUEST) {
			n = send(p->fd, buf, BULK, MSG_NOSIGNAL);
			continue;
		}
		n = read(p->fd, buf, p->what == ROUND_TRIPS ? SMALL : BULK);
		if (n > 0 && p->what == ROUND_TRIPS)
			n = send(p->fd, buf, (size_t)n, MSG_NOSIGNAL);
	}
	return NULL;
}

static void report(const char *who, enum what what, double seconds, double units)
{
	if (what == ROUND_TRIPS)
		printf("%-12s %-24s %8.2f us\n", who, what_str[what], seconds / units * 1e6);
	else
		printf("%-12s %-24s %8.0f MB/s\n", who, what_str[what], units / seconds / 1e6);
}

static void bare_socket(enum what what, double seconds)
{
	static char buf[BULK];
	struct program p = {.what = what};
	pthread_t thread;
	double start = now(), units = 0;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	p.fd = pair[1];
	pthread_create(&thread, NULL, host_thread, &p);
	while (now() - start < seconds) {
		ssize_t n;

		if (what == TO_GUEST)
			n = read(pair[0], buf, BULK);
		else
			n = write(pair[0], buf, what == ROUND_TRIPS ? SMALL : BULK);
		if (what == ROUND_TRIPS && read(pair[0], buf, SMALL) != SMALL)
			abort();
		units += what == ROUND_TRIPS ? 1 : (double)n;
	}
	report("bare socket", what, now() - start, units);
	p.stop = true;
	shutdown(pair[0], SHUT_RDWR);
	pthread_join(thread, NULL);
	close(pair[0]);
	close(pair[1]);
}

static void vsock(struct rig *r, enum what what, double seconds)
{
	struct virtio_vsock_stats before, after;
	struct program p = {.what = what};
	pthread_t thread;
	double start, units = 0;

	r->sent = r->fwd = r->got = r->peer_fwd = 0;
	send_packet(r, VIRTIO_VSOCK_OP_REQUEST, 0);
	wait_for_more(r);
	p.fd = accept(r->listen_fd, NULL, NULL);
	pthread_create(&thread, NULL, host_thread, &p);
	before = *virtio_vsock_stats(r->dev);
	r->kicked = r->interrupted = 0;
	start = now();
	while (now() - start < seconds) {
		uint32_t had = r->got, n = what == ROUND_TRIPS ? SMALL : BULK;

		if (what != TO_GUEST) {
			while (r->peer_alloc - (r->sent - r->peer_fwd) < n)
				wait_for_more(r);
			send_packet(r, VIRTIO_VSOCK_OP_RW, n);
		}
		while (what != TO_HOST && r->got == had)
			wait_for_more(r);
		units += what == ROUND_TRIPS ? 1 : what == TO_HOST ? n : r->got - had;
	}
	report("vsock", what, now() - start, units);
	after = *virtio_vsock_stats(r->dev);
	units = what == ROUND_TRIPS ? units : units / BULK;
	printf("  per %s: %.2f kicks, %.2f interrupts, %.2f sends, %.2f reads; %.1f %% copied\n",
	       what == ROUND_TRIPS ? "round trip" : "64 KiB", r->kicked / units,
	       r->interrupted / units, (double)(after.sends - before.sends) / units,
	       (double)(after.reads - before.reads) / units,
	       100.0 * (double)(after.copied - before.copied) /
		       (double)(after.bytes_from_guest - before.bytes_from_guest + 1));
	p.stop = true;
	send_packet(r, VIRTIO_VSOCK_OP_RST, 0);
	pthread_join(thread, NULL);
	close(p.fd);
	while (take(r))
		;
}

static void set_up(struct rig *r)
{
	vdriver_init(&r->d);
	r->irq_fd = eventfd(0, EFD_CLOEXEC);
	r->addr.sun_family = AF_UNIX;
	snprintf(r->addr.sun_path, sizeof(r->addr.sun_path), "/tmp/vsock-speed-%d", getpid());
	r->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(r->listen_fd, (struct sockaddr *)&r->addr, sizeof(r->addr)) ||
	    listen(r->listen_fd, 4) || loop_create(&r->loop) ||
	    virtio_vsock_create(&r->dev, r->loop, NULL) ||
	    virtio_vsock_connect(r->dev, PORT, r->addr.sun_path, NULL))
		abort();
	r->tx_gpa = vdriver_alloc(&r->d, (size_t)TX_BUFS * (BULK + HDR));
	vdriver_start(&r->d, r->dev, 0);
	r->dev->transport = &transport;
	for (unsigned q = 0; q < 2; q++) {
		r->kicks[q] =
			(struct bell){.source = {.fd = eventfd(0, EFD_CLOEXEC), .ready = on_kick},
				      .rig = r,
				      .q = q};
		if (loop_add(r->loop, &r->kicks[q].source, EPOLLIN | EPOLLET))
			abort();
	}
	for (unsigned i = 0; i < RX_BUFS; i++) {
		struct vdriver_buf buf = {vdriver_alloc(&r->d, RX_BYTES), RX_BYTES, true};

		vdriver_add(&r->d, RX, &buf, 1);
	}
	r->stop = (struct loop_source){.fd = eventfd(0, EFD_CLOEXEC), .ready = on_stop};
	if (loop_add(r->loop, &r->stop, EPOLLIN))
		abort();
}

int main(int argc, char **argv)
{
	static struct rig r;
	double seconds = argc > 1 ? atof(argv[1]) : 1;
	pthread_t thread;

	spread = argc > 2;
	stay_on(0);
	set_up(&r);
	pthread_create(&thread, NULL, device_thread, &r);
	for (enum what what = 0; what < NUM_WHATS; what++) {
		bare_socket(what, seconds);
		vsock(&r, what, seconds);
	}
	ring_bell(r.stop.fd);
	pthread_join(thread, NULL);
	vdriver_stop(&r.d);
	r.dev->ops->destroy(r.dev);
	unlink(r.addr.sun_path);
	return 0;
}
