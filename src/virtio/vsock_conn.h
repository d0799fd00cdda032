/* SPDX-License-Identifier: Apache-2.0
 *
 * vsock_conn.h -- one vsock connection: its socket on the host, its credit, what the guest sent and
 * the socket has not taken yet.
 *
 * Knows nothing of rings: virtio_vsock.c owns the connections and moves their bytes.  One thread.
 */
#ifndef PIL_VSOCK_CONN_H
#define PIL_VSOCK_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "base/list.h"
#include "base/loop.h"

enum vsock_conn_state {
	VSOCK_CONN_REQUESTED, /* from the host; the guest has not answered */
	VSOCK_CONN_OPEN,
	VSOCK_CONN_CLOSING,   /* the socket is gone; the guest knows and has not confirmed */
	VSOCK_CONN_LINGERING, /* the guest is gone; the socket gets the rest of its bytes */
	VSOCK_CONN_NUM_STATES,
};

enum { /* control packets that the guest is owed, in the order they are sent */
       VSOCK_OWED_REQUEST = 1,
       VSOCK_OWED_RESPONSE = 2,
       VSOCK_OWED_CREDIT_REQUEST = 4,
       VSOCK_OWED_CREDIT_UPDATE = 8,
       VSOCK_OWED_SHUTDOWN = 16,
};

struct vsock_conn {
	struct loop_source source; /* source.fd is ours; -1 once closed */
	void *owner;               /* of the owner */
	struct list link;          /* of the owner: its table, or the lingering ones */
	struct list owing_link;    /* of the owner */
	struct list run_link;      /* of the owner: readable, but not polled for it */
	uint32_t guest_port, host_port;
	enum vsock_conn_state state;
	bool from_host;
	bool hung_up;        /* the peer is gone: not polled, read until end of file */
	bool waiting_credit; /* readable, but the guest has no room */
	uint32_t events;     /* the socket is watched for */
	unsigned owed;       /* VSOCK_OWED_* */
	uint32_t guest_shutdown, our_shutdown; /* VIRTIO_VSOCK_SHUTDOWN_* said so far */
	int64_t deadline_ms;                   /* 0: none */
	unsigned batch;                        /* guest buffers offered to the next read */

	/* From the guest: @fwd_cnt bytes have left for the socket, @staged_len wait in a ring.  The
	 * guest may send buf_alloc bytes beyond the last fwd_cnt it was told. */
	uint32_t buf_alloc, fwd_cnt, fwd_cnt_told;
	uint8_t *staged; /* buf_alloc bytes, NULL until needed */
	size_t staged_at, staged_len;

	/* To the guest: @tx_cnt bytes sent, of which it has consumed @peer_fwd_cnt. */
	uint32_t tx_cnt, peer_fwd_cnt, peer_buf_alloc;
};

/* Takes @fd, a non-blocking stream socket, and watches it for nothing yet.  NULL: no memory, and
 * @fd is closed. */
struct vsock_conn *vsock_conn_create(struct loop *loop, int fd, uint32_t buf_alloc) PIL_MUST_CHECK;
void vsock_conn_destroy(struct vsock_conn *c); /* NULL is fine; off all lists */

void vsock_conn_close_socket(struct vsock_conn *c);
void vsock_conn_watch(struct vsock_conn *c, uint32_t events);

/* How many bytes the guest has room for. */
uint32_t vsock_conn_credit(const struct vsock_conn *c);

/* How many bytes the guest may still send, by what it was promised at most. */
uint32_t vsock_conn_room(const struct vsock_conn *c);

/* Passes the @len <= vsock_conn_room() bytes of @iov (which it modifies) on to the socket; what the
 * socket does not take is staged, and the socket watched for room.  Adds what was copied to
 * *@copied. 0, or -errno when the socket takes no more. */
int vsock_conn_send(struct vsock_conn *c, struct iovec *iov, unsigned n_iov, size_t len,
		    uint64_t *copied) PIL_MUST_CHECK;

/* Sends what is staged, as far as the socket takes it.  0 or -errno as above. */
int vsock_conn_drain(struct vsock_conn *c) PIL_MUST_CHECK;

/* Forgets what is staged, as if it had been sent. */
void vsock_conn_discard(struct vsock_conn *c);

#endif
