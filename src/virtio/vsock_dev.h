/* SPDX-License-Identifier: Apache-2.0
 *
 * vsock_dev.h -- the vsock device, shared by its two halves and by nobody else: virtio_vsock.c
 * (sockets, packets of the guest) and vsock_to_guest.c (everything that goes into guest buffers).
 */
#ifndef PIL_VSOCK_DEV_H
#define PIL_VSOCK_DEV_H

#include <linux/virtio_vsock.h>

#include "base/log.h"
#include "base/loop.h"
#include "virtio/virtio.h"
#include "virtio/virtio_vsock.h"
#include "virtio/vsock_conn.h"

enum {
	VSOCK_QUEUE_TO_GUEST, /* "rx" of the specification, which is the driver's view */
	VSOCK_QUEUE_FROM_GUEST,
	VSOCK_QUEUE_EVENT,
	VSOCK_NUM_QUEUES,

	VSOCK_HOST_CID = 2,
	VSOCK_HDR = sizeof(struct virtio_vsock_hdr),
	VSOCK_BUCKETS = 256,
	VSOCK_MAX_CONNS = VIRTIO_VSOCK_MAX_FROM_HOST + VIRTIO_VSOCK_MAX_FROM_GUEST,
	/* Resets waiting for guest buffers.  Connections that end may always leave one; packets of
	 * the guest are not looked at while more than VSOCK_RESETS_PAUSE wait. */
	VSOCK_RESETS_PAUSE = 64,
	VSOCK_MAX_RESETS = VSOCK_RESETS_PAUSE + VSOCK_MAX_CONNS + 1,
	VSOCK_MAX_BATCH = 64, /* guest buffers filled by one read */
	VSOCK_MAX_HEADS = 32, /* packets of the guest sent at once */
};

struct vsock_reset {
	uint64_t host_cid; /* as the guest called us */
	uint32_t host_port, guest_port;
	uint16_t type;
};

struct vsock_listener {
	struct loop_source source; /* the fd is ours */
	struct vsock *vsock;
	uint32_t guest_port;
};

struct vsock_route {
	uint32_t host_port;
	char *path;
};

struct vsock {
	struct virtio_device dev;
	struct loop *loop;
	struct list table[VSOCK_BUCKETS]; /* vsock_conn::link, by ports */
	struct list lingering;            /* vsock_conn::link */
	struct list owing;                /* vsock_conn::owing_link */
	struct list run;                  /* vsock_conn::run_link */
	struct vsock_reset resets[VSOCK_MAX_RESETS];
	unsigned resets_at, n_resets;
	bool paused;           /* packets of the guest wait until resets are gone */
	bool listeners_paused; /* too many connections from the host */
	struct vsock_listener listeners[VIRTIO_VSOCK_MAX_ROUTES];
	struct vsock_route routes[VIRTIO_VSOCK_MAX_ROUTES];
	int n_listeners, n_routes;
	uint32_t next_host_port;
	struct loop_timer tick;  /* while a connection has a deadline */
	struct loop_timer ask;   /* until the guest is asked for the credit it has not told of */
	struct loop_timer quiet; /* until the driver hears of packets taken */
	unsigned unsaid;         /* such packets ... */
	size_t unsaid_bytes;     /* ... and what they hold */
	struct log_limit limit;
	struct virtio_vsock_stats stats;
	void (*seen)(uint32_t host_port, bool data); /* NULL: nobody traces */
	struct virtq_chain chain;                    /* scratch */

	struct { /* data packets of one connection, not sent yet */
		struct vsock_conn *conn;
		unsigned n_heads, n_iov;
		size_t len;
		uint16_t heads[VSOCK_MAX_HEADS];
		struct iovec iov[VIRTQ_MAX_IOV];
	} out;
	struct { /* guest buffers for one read */
		unsigned n, n_hdr, n_data;
		uint16_t heads[VSOCK_MAX_BATCH];
		uint32_t room[VSOCK_MAX_BATCH];       /* for data */
		uint16_t hdr_at[VSOCK_MAX_BATCH + 1]; /* where its header's parts start */
		struct iovec hdr[VIRTQ_MAX_IOV];
		struct iovec data[VIRTQ_MAX_IOV];
	} in;
};

/* Sends what is owed and reads what sockets have, as far as the guest has buffers.  Every event
 * ends with this. */
void vsock_to_guest(struct vsock *v);

/* Reads once from a socket that is said to be readable. */
void vsock_read(struct vsock *v, struct vsock_conn *c);

void vsock_owe(struct vsock *v, struct vsock_conn *c, unsigned owed);
void vsock_owe_reset(struct vsock *v, const struct vsock_reset *reset);

/* The socket will send (VIRTIO_VSOCK_SHUTDOWN_SEND) or take (_RCV) no more. */
void vsock_socket_ended(struct vsock *v, struct vsock_conn *c, uint32_t flags);

#endif
