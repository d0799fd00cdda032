/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: while a back end is connected, it owns the queues and their eventfds, and
 * this file only watches the connection.  Otherwise the queues are ours: the eventfds are watched,
 * and each request is answered with an error, so that programs in the guest do not hang.
 *
 * When the back end goes, what it had taken and not answered must be answered too.  Its position in
 * the queue is lost with it, but virtiofsd (with its default of no thread pool) answers in order:
 * whatever lies behind the last answer is open.  virtq_resume() starts there.
 *
 * The eventfds of a back end that is gone, or whose queues were taken back, are renewed: it may
 * hold them still, and nothing it does to them must reach us.  They are watched for edges and not
 * read, and not written to once they are handed over; either could block.
 *
 * A new back end gets the queues at our position, with nothing open.  The connection stays over a
 * reset of the device, because virtiofsd ends with its connection; only the queues are taken back.
 */
#include "virtio/virtio_fs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <linux/virtio_config.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "virtio/iovs.h"
#include "virtio/vhost_user.h"
#include "virtio/virtio.h"

enum {
	QUEUE_HIPRIO,
	QUEUE_REQUEST,
	NUM_QUEUES,
	HIPRIO_SIZE = 128,
	REQUEST_SIZE = 1024, /* the guest's largest request follows from it: 1 MiB */
	RETRY_MS = 1000,
	REQUESTS_PER_TURN = 64,
};

struct fs;

struct fs_bell {
	struct loop_source source; /* the queue's kick, borrowed; watched while the queue is ours */
	struct fs *fs;
	int call_fd; /* borrowed */
};

struct fs {
	struct virtio_device dev;
	struct loop *loop;
	struct sockaddr_un addr;
	struct virtio_fs_config config;
	struct vhost_user vu;
	bool connected; /* the back end owns the queues */
	struct fs_bell bells[NUM_QUEUES];
	struct loop_timer retry;
	struct log_limit limit;
	struct virtq_chain chain; /* scratch */
};

/* ---- without a back end */

static void fail_request(struct fs *fs, unsigned q)
{
	const struct virtq_chain *chain = &fs->chain;
	struct fuse_in_header in;
	struct fuse_out_header out = {.len = sizeof(out), .error = -ENOTCONN};
	size_t put = 0;

	if (iovs_read(chain->iov, chain->n_out, 0, &in, sizeof(in)) < sizeof(in)) {
		virtio_device_broken(&fs->dev, "request without a header");
		return;
	}
	out.unique = in.unique;
	if (in.opcode != FUSE_FORGET && in.opcode != FUSE_BATCH_FORGET)
		put = iovs_write(chain->iov + chain->n_out, chain->n_in, 0, &out, sizeof(out));
	virtq_push(&fs->dev.queues[q], chain->head, (uint32_t)put);
}

static void fail_requests(struct fs *fs, unsigned q)
{
	unsigned budget = REQUESTS_PER_TURN;

	while (budget-- && virtio_device_pop(&fs->dev, q, &fs->chain))
		fail_request(fs, q);
	virtio_queue_flush(&fs->dev, q);
	if (virtq_want_notify(&fs->dev.queues[q]))
		fs->dev.transport->renotify(&fs->dev, q); /* adds to the kick: ours again */
}

static void bell_rung(struct loop_source *source, uint32_t events)
{
	struct fs_bell *bell = container_of(source, struct fs_bell, source);

	(void)events;
	fail_requests(bell->fs, (unsigned)(bell - bell->fs->bells));
}

/* The queues are ours from now on. */
static void serve_ourselves(struct fs *fs)
{
	fs->connected = false;
	for (unsigned q = 0; q < NUM_QUEUES; q++) {
		struct fs_bell *bell = &fs->bells[q];

		if (bell->source.fd >= 0 && !bell->source.loop &&
		    loop_add(fs->loop, &bell->source, EPOLLIN | EPOLLET))
			log_err("fs: tag '%.36s': requests will hang: no memory", fs->config.tag);
		virtq_resume(&fs->dev.queues[q]);
		fail_requests(fs, q);
	}
}

/* ---- with one */

static int hand_over(struct fs *fs)
{
	const struct virtq *q0 = &fs->dev.queues[QUEUE_REQUEST];
	uint64_t features = UINT64_C(1) << VIRTIO_F_VERSION_1 |
			    (uint64_t)q0->indirect << VIRTIO_RING_F_INDIRECT_DESC |
			    (uint64_t)q0->event_idx << VIRTIO_RING_F_EVENT_IDX;
	int rc = vhost_user_start(&fs->vu, q0->mem, features);

	for (unsigned q = 0; q < NUM_QUEUES && !rc; q++) {
		uint64_t one = 1;

		if (!fs->dev.queues[q].enabled)
			continue;
		loop_remove(&fs->bells[q].source);
		/* have it look at what came before */
		if (write(fs->bells[q].source.fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
			return -errno;
		rc = vhost_user_start_queue(&fs->vu, q, &fs->dev.queues[q], fs->bells[q].source.fd,
					    fs->bells[q].call_fd);
	}
	return rc;
}

static void cut_off(struct fs *fs)
{
	for (unsigned q = 0; q < NUM_QUEUES; q++) {
		loop_remove(&fs->bells[q].source);
		virtio_device_renew_fds(&fs->dev, q);
		fs->bells[q].call_fd = virtio_device_call_fd(&fs->dev, q);
	}
}

static void try_later(struct fs *fs)
{
	loop_timer_arm(fs->loop, &fs->retry, RETRY_MS);
}

static void back_end_gone(struct vhost_user *vu, const char *why)
{
	struct fs *fs = container_of(vu, struct fs, vu);

	if (log_allowed(&fs->limit))
		log_warn("fs: tag '%.36s': %s; requests fail until it is back", fs->config.tag,
			 why);
	fs->connected = false;
	if (fs->dev.active) {
		cut_off(fs);
		serve_ourselves(fs);
	}
	try_later(fs);
}

static void back_end_ready(struct vhost_user *vu)
{
	struct fs *fs = container_of(vu, struct fs, vu);
	int rc;

	if (!fs->dev.active || fs->bells[QUEUE_REQUEST].source.fd < 0)
		return; /* activate() goes on */
	for (unsigned q = 0; q < NUM_QUEUES; q++)
		if (fs->dev.queues[q].broken)
			return; /* NEEDS_RESET: its rings are nowhere */
	rc = hand_over(fs);
	if (rc) {
		vhost_user_close(vu);
		back_end_gone(vu, rc == -EOPNOTSUPP ? "the back end lacks a feature"
						    : "the back end takes no requests");
		return;
	}
	fs->connected = true;
}

/* #syscalls: socket(0=AF_UNIX) connect */
static void connect_back_end(struct fs *fs)
{
	_auto_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int rc = 0;

	if (fd < 0 || connect(fd, (const struct sockaddr *)&fs->addr, sizeof(fs->addr)))
		rc = -errno;
	else
		rc = vhost_user_attach(&fs->vu, fs->loop, pil_take_fd(&fd));
	if (!rc)
		return;
	if (log_allowed(&fs->limit))
		log_dbg("fs: tag '%.36s': connect to '%s': %s", fs->config.tag, fs->addr.sun_path,
			strerror(-rc));
	try_later(fs);
}

static void retry_expired(struct loop_timer *timer)
{
	struct fs *fs = container_of(timer, struct fs, retry);

	if (fs->vu.state == VHOST_USER_CLOSED)
		connect_back_end(fs);
}

/* ---- the device */

static void fs_notified(struct virtio_device *dev, unsigned q)
{
	struct fs *fs = (struct fs *)dev;

	if (!fs->connected)
		fail_requests(fs, q);
}

static void fs_activate(struct virtio_device *dev)
{
	struct fs *fs = (struct fs *)dev;

	for (unsigned q = 0; q < NUM_QUEUES; q++) {
		fs->bells[q].source.fd = virtio_device_kick_fd(dev, q);
		fs->bells[q].call_fd = virtio_device_call_fd(dev, q);
	}
	if (fs->vu.state == VHOST_USER_READY)
		back_end_ready(&fs->vu);
	if (fs->connected)
		return;
	serve_ourselves(fs);
	if (fs->vu.state == VHOST_USER_CLOSED)
		connect_back_end(fs);
}

static void fs_reset(struct virtio_device *dev)
{
	struct fs *fs = (struct fs *)dev;
	int rc = 0;

	for (unsigned q = 0; q < NUM_QUEUES; q++) {
		if (fs->connected && dev->queues[q].enabled && !rc)
			rc = vhost_user_stop_queue(&fs->vu, q);
		loop_remove(&fs->bells[q].source);
	}
	if (fs->connected)
		cut_off(fs);
	for (unsigned q = 0; q < NUM_QUEUES; q++)
		fs->bells[q].source.fd = fs->bells[q].call_fd = -1;
	fs->connected = false;
	if (rc) {
		log_warn("fs: tag '%.36s': the back end does not stop: %s", fs->config.tag,
			 strerror(-rc));
		vhost_user_close(&fs->vu);
	}
}

static void fs_config_read(struct virtio_device *dev, size_t off, void *to, size_t len)
{
	memcpy(to, (const char *)&((struct fs *)dev)->config + off, len);
}

static void fs_destroy(struct virtio_device *dev)
{
	struct fs *fs = (struct fs *)dev;

	vhost_user_close(&fs->vu);
	loop_timer_cancel(&fs->retry);
	free(fs);
}

static const struct virtio_ops fs_ops = {
	.name = "fs",
	.device_id = VIRTIO_ID_FS,
	.pci_class = 0x018000, /* other mass storage */
	.n_queues = NUM_QUEUES,
	.config_read = fs_config_read,
	.activate = fs_activate,
	.reset = fs_reset,
	.notified = fs_notified,
	.destroy = fs_destroy,
};

int virtio_fs_create(struct virtio_device **out, struct loop *loop, const char *tag,
		     const char *socket_path, struct pil_err *err)
{
	struct fs *fs;

	if (!*tag || strlen(tag) > VIRTIO_FS_MAX_TAG)
		return pil_err_say(err, EINVAL, "folder tag '%s': 1 to %d bytes", tag,
				   VIRTIO_FS_MAX_TAG);
	if (strlen(socket_path) >= sizeof(fs->addr.sun_path))
		return pil_err_set(err, ENAMETOOLONG, "folder '%s': socket '%s'", tag, socket_path);
	fs = calloc(1, sizeof(*fs));
	if (!fs)
		return pil_err_set(err, ENOMEM, "folder '%s'", tag);
	fs->dev.ops = &fs_ops;
	fs->dev.config_bytes = sizeof(fs->config);
	fs->dev.queues[QUEUE_HIPRIO].max_size = HIPRIO_SIZE;
	fs->dev.queues[QUEUE_REQUEST].max_size = REQUEST_SIZE;
	fs->config.num_request_queues = 1;
	memcpy(fs->config.tag, tag, strlen(tag));
	fs->loop = loop;
	fs->addr.sun_family = AF_UNIX;
	memcpy(fs->addr.sun_path, socket_path, strlen(socket_path));
	fs->vu = (struct vhost_user){.source.fd = -1,
				     .ready = back_end_ready,
				     .gone = back_end_gone};
	fs->retry.expired = retry_expired;
	for (unsigned q = 0; q < NUM_QUEUES; q++)
		fs->bells[q] = (struct fs_bell){.source = {.fd = -1, .ready = bell_rung},
						.fs = fs,
						.call_fd = -1};
	*out = &fs->dev;
	return 0;
}

bool virtio_fs_is_connected(const struct virtio_device *dev)
{
	return ((const struct fs *)dev)->connected;
}
