/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests to a disk, one by one or some at once, of any kind, cut up in any way.  Whatever they
 * say: each comes back once, with a status; nothing is written beside the buffers that it gave for
 * that; the image keeps its size; and what was read and written alone is what the image holds. */
#include <assert.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/vdriver.h"
#include "virtio/virtio_blk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	IMAGE_BYTES = 64 << 10,
	SECTOR = 512,
	MAX_STEPS = 48,
	MAX_PIECES = 4,
	MAX_DATA = 4096,
	GUARD_BYTES = 64,
	GUARD = 0xa5,
	UNSET = 0xee,
};

struct step {
	uint8_t type;  /* of the request; 0xff: reserved is */
	uint8_t shape; /* SHAPE_* */
	uint16_t data_bytes;
	uint32_t sector;
	uint32_t n_sectors, flags; /* of a range to clear */
};
enum { SHAPE_PIECES = 3, SHAPE_INDIRECT = 4, SHAPE_MORE = 8, SHAPE_SHORT = 16, SHAPE_FAR = 32 };

struct request {
	struct step step;
	uint64_t data_gpa, status_gpa;
	uint32_t data_bytes;
	uint16_t head;
	bool reads, out;
};

static struct vdriver d;
static int image_fd;

/* Memory with a guard behind it. */
static uint64_t guarded(uint32_t bytes)
{
	uint64_t gpa = vdriver_alloc(&d, bytes + GUARD_BYTES);

	memset(vdriver_at(&d, gpa), UNSET, bytes);
	memset((uint8_t *)vdriver_at(&d, gpa) + bytes, GUARD, GUARD_BYTES);
	return gpa;
}

static void check_guard(uint64_t gpa, uint32_t bytes)
{
	const uint8_t *guard = (const uint8_t *)vdriver_at(&d, gpa) + bytes;

	for (unsigned i = 0; i < GUARD_BYTES; i++)
		assert(guard[i] == GUARD);
}

static void fill_data(const struct request *r)
{
	uint8_t *at = vdriver_at(&d, r->data_gpa);
	const struct virtio_blk_discard_write_zeroes range = {.sector = r->step.sector,
							      .num_sectors = r->step.n_sectors,
							      .flags = r->step.flags};
	bool ranges =
		r->step.type == VIRTIO_BLK_T_DISCARD || r->step.type == VIRTIO_BLK_T_WRITE_ZEROES;

	if (r->reads)
		return;
	for (uint32_t i = 0; i < r->data_bytes; i++)
		at[i] = ranges ? ((const uint8_t *)&range)[i % sizeof(range)]
			       : (uint8_t)(r->step.flags + i);
}

/* Offers the request that the step describes. */
static struct request offer(const struct step *step)
{
	struct request r = {.step = *step,
			    .data_bytes = step->data_bytes % (MAX_DATA + 1),
			    .reads = step->type == VIRTIO_BLK_T_IN ||
				     step->type == VIRTIO_BLK_T_GET_ID};
	struct virtio_blk_outhdr hdr = {.type = step->type,
					.sector = step->shape & SHAPE_FAR
							  ? UINT64_MAX - step->sector
							  : step->sector};
	struct vdriver_buf bufs[2 + MAX_PIECES] = {
		{.gpa = vdriver_put(&d, &hdr, sizeof(hdr)),
		 .len = step->shape & SHAPE_SHORT ? sizeof(hdr) - 1 : sizeof(hdr)}};
	unsigned n = 1, pieces = 1 + (step->shape & SHAPE_PIECES);

	r.data_gpa = guarded(r.data_bytes);
	r.status_gpa = guarded(1);
	fill_data(&r);
	for (uint32_t at = 0; n <= pieces; n++) { /* empty ones are legal */
		uint32_t len = n == pieces ? r.data_bytes - at : r.data_bytes / pieces;

		bufs[n] = (struct vdriver_buf){r.data_gpa + at, len, r.reads};
		at += len;
	}
	bufs[n++] = (struct vdriver_buf){r.status_gpa, 1, true};
	r.head =
		(step->shape & SHAPE_INDIRECT ? vdriver_add_indirect : vdriver_add)(&d, 0, bufs, n);
	r.out = true;
	return r;
}

/* What was done alone can be seen in the image. */
static void check_alone(const struct request *r, uint8_t status)
{
	uint8_t held[MAX_DATA];
	off_t at = (off_t)r->step.sector * SECTOR;

	if (status != VIRTIO_BLK_S_OK || r->step.shape & (SHAPE_FAR | SHAPE_SHORT) ||
	    r->step.type > VIRTIO_BLK_T_OUT)
		return;
	assert(r->data_bytes % SECTOR == 0 && at + r->data_bytes <= IMAGE_BYTES);
	assert(pread(image_fd, held, r->data_bytes, at) == (ssize_t)r->data_bytes);
	assert(!memcmp(held, vdriver_at(&d, r->data_gpa), r->data_bytes));
}

static void check(const struct request *r, const struct vring_used_elem *used, bool alone)
{
	uint8_t status = *(uint8_t *)vdriver_at(&d, r->status_gpa);

	assert(status <= VIRTIO_BLK_S_UNSUPP);
	assert(used->len <= 1 + (r->reads ? r->data_bytes : 0));
	check_guard(r->data_gpa, r->data_bytes);
	check_guard(r->status_gpa, 1);
	if (alone)
		check_alone(r, status);
}

/* Waits until all @n requests are back; false: the device is broken. */
static bool finish(struct request *requests, unsigned n)
{
	struct vring_used_elem used;

	vdriver_kick(&d, 0);
	for (unsigned left = n; left;) {
		unsigned i = 0;

		if (__atomic_load_n(&d.broken, __ATOMIC_ACQUIRE))
			return false;
		if (!vdriver_used(&d, 0, &used)) {
			sched_yield();
			continue;
		}
		while (i < n && !(requests[i].out && requests[i].head == used.id))
			i++;
		assert(i < n);
		requests[i].out = false;
		check(&requests[i], &used, n == 1);
		left--;
	}
	assert(!vdriver_used(&d, 0, &used));
	return true;
}

static void prepare(void)
{
	vdriver_init(&d);
	d.lends_fds = true;
	image_fd = memfd_create("image", MFD_CLOEXEC);
	if (image_fd < 0 || ftruncate(image_fd, IMAGE_BYTES))
		abort();
}

static void run_steps(const uint8_t *data, size_t size)
{
	struct request requests[MAX_STEPS];
	unsigned n = 0;
	bool alive = true;

	for (unsigned i = 0; i < MAX_STEPS && size >= sizeof(struct step) && alive; i++) {
		struct step step;

		memcpy(&step, data, sizeof(step));
		data += sizeof(step);
		size -= sizeof(step);
		requests[n++] = offer(&step);
		if (step.shape & SHAPE_MORE && n < MAX_STEPS)
			continue;
		alive = finish(requests, n);
		n = 0;
	}
	if (n && alive)
		finish(requests, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool prepared;
	struct virtio_blk_opts opts = {.path = "image", .serial = "fuzz"};
	struct virtio_device *dev;
	struct stat st;

	if (!size)
		return 0;
	if (!prepared)
		prepare();
	prepared = true;
	opts.fd = image_fd;
	opts.read_only = data[0] & 1;
	if (virtio_blk_create(&dev, &opts, NULL))
		abort();
	d.next_gpa = VDRIVER_BUFFERS_GPA;
	d.broken = 0;
	vdriver_start(&d, dev, dev->offered);
	run_steps(data + 1, size - 1);
	vdriver_stop(&d);
	dev->ops->destroy(dev);
	assert(!fstat(image_fd, &st) && st.st_size == IMAGE_BYTES);
	return 0;
}
