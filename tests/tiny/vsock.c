/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --boot-timer --vsock-connect 1025:@ECHO --vsock-listen @CALLER:1024
 * status: 0
 * stderr: virtio vsock: the guest broke a rule
 * stderr: ms kernel entry
 * stderr: ms init
 * stderr: ms agent ready
 *
 * Streams to and from the host; packets that make no sense are answered with resets.  The boot
 * timer takes port 1025 for the life connection. */
#include "tiny.h"

enum { RX, TX, RX_BYTES = 256, HDR = 44, PORT = 5000, ECHO = 1025, NOBODY = 78 };
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE };

struct header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

static struct vdev vsock;
static struct vqueue rx, tx;
static uint8_t rx_data[VQ_SIZE][RX_BYTES];
static struct header out;
static char out_data[64];
static unsigned n_rx, n_tx;
static struct header *in; /* the last packet received */

static void start(void)
{
	vdev_negotiate(&vsock, V_FEATURES);
	vqueue_set_up(&vsock, &rx, RX, 0xffff);
	vqueue_set_up(&vsock, &tx, TX, 0xffff);
	vdev_driver_ok(&vsock);
	n_rx = n_tx = 0;
	for (unsigned i = 0; i < VQ_SIZE; i++) {
		rx.desc[i] = (struct vdesc){(uint64_t)rx_data[i], RX_BYTES, D_WRITE, 0};
		vqueue_offer(&vsock, &rx, i);
	}
}

static bool send(uint16_t op, uint32_t src_port, uint32_t dst_port, const char *data, uint32_t len)
{
	out = (struct header){3, 2, src_port, dst_port, len, 1, op, 0, 4096, 0};
	if (op == SHUTDOWN)
		out.flags = 3;
	for (uint32_t i = 0; data && i < len; i++)
		out_data[i] = data[i];
	tx.desc[0] = (struct vdesc){(uint64_t)&out, HDR, data ? D_NEXT : 0, 1};
	tx.desc[1] = (struct vdesc){(uint64_t)out_data, len, 0, 0};
	vqueue_offer(&vsock, &tx, 0);
	return vqueue_used(&tx, ++n_tx);
}

static bool receive(uint16_t op)
{
	uint16_t want = (uint16_t)(n_rx + 1);
	uint64_t since = ticks();

	while ((uint16_t)(rx.used.idx - want) > 1000) {
		if (!waiting(since)) {
			in = (struct header *)rx_data[0];
			return false;
		}
	}
	in = (struct header *)rx_data[rx.used.ring[n_rx % VQ_SIZE].id];
	return in->op == op;
}

static void done(void) /* with what was received: its buffer goes back */
{
	unsigned id = rx.used.ring[n_rx++ % VQ_SIZE].id;

	vqueue_offer(&vsock, &rx, id);
}

static bool data_is(const char *text)
{
	const char *at = (const char *)in + HDR;

	for (uint32_t i = 0; text[i]; i++)
		if (at[i] != text[i])
			return false;
	return true;
}

static void talk(void)
{
	ok(send(REQUEST, PORT, ECHO, NULL, 0) && receive(RESPONSE), "a connection is accepted");
	ok(in->src_cid == 2 && in->dst_cid == 3 && in->src_port == ECHO && in->dst_port == PORT &&
		   in->buf_alloc,
	   "the answer has our addresses, and credit");
	done();
	ok(send(RW, PORT, ECHO, "hello", 5) && receive(RW), "what is sent comes back");
	ok(in->len == 5 && data_is("hello") && in->fwd_cnt == 5, "unchanged, and it is counted");
	done();
	ok(send(SHUTDOWN, PORT, ECHO, NULL, 0) && receive(RST), "its end is confirmed");
	done();
}

static void be_called(void)
{
	uint32_t port;

	ok(receive(REQUEST) && in->dst_port == 1024, "the host calls");
	port = in->src_port;
	done();
	ok(send(RESPONSE, 1024, port, NULL, 0) && receive(RW) && data_is("ping"), "it says ping");
	done();
	ok(send(RW, 1024, port, "pong", 4) && receive(SHUTDOWN), "it hears pong, and leaves");
	done();
	ok(send(RST, 1024, port, NULL, 0), "which is confirmed");
}

static void refused(bool sent, const char *what)
{
	ok(sent && receive(RST), what);
	done();
}

void tiny_main(void)
{
	ok(vdev_find(&vsock, 19), "there is a vsock device");
	ok(rd64(vsock.config) == 3, "we are number 3");
	start();
	be_called();
	talk();

	refused(send(REQUEST, PORT, NOBODY, NULL, 0), "a port where nobody listens");
	refused(send(RW, PORT, ECHO, "x", 1), "data for no connection");
	refused(send(77, PORT, ECHO, NULL, 0), "an unknown operation");
	send(REQUEST, PORT, ECHO, NULL, 0);
	receive(RESPONSE);
	done();
	refused(send(RW, PORT, ECHO, NULL, 4000), "a length without the data");
	send(REQUEST, PORT, ECHO, NULL, 0);
	receive(RESPONSE);
	done();
	refused(send(REQUEST, PORT, ECHO, NULL, 0), "a connection that is there already");
	ok(!(vdev_status(&vsock) & V_NEEDS_RESET), "none of that breaks the device");

	tx.desc[0] = (struct vdesc){(uint64_t)&out, HDR - 1, 0, 0};
	vqueue_offer(&vsock, &tx, 0);
	ok(vdev_needs_reset(&vsock), "half a header does");
	start();
	talk();
}
