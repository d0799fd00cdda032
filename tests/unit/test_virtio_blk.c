/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "lib/bound.h"
#include "lib/vdriver.h"
#include "virtio/virtio_blk.h"

enum { SECTORS = 2048, SECTOR = 512 };

struct fixture {
	struct vdriver d;
	struct virtio_device *dev;
	int fd;
};

static void create(struct fixture *f, bool read_only)
{
	struct virtio_blk_opts opts = {.fd = f->fd,
				       .read_only = read_only,
				       .serial = "root",
				       .path = "image"};

	assert_int_equal(virtio_blk_create(&f->dev, &opts, NULL), 0);
	vdriver_start(&f->d, f->dev, f->dev->offered);
}

static int setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	vdriver_init(&f.d);
	f.d.lends_fds = true;
	f.fd = memfd_create("image", MFD_CLOEXEC);
	assert_int_equal(ftruncate(f.fd, SECTORS * SECTOR), 0);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vdriver_stop(&f->d);
	f->dev->ops->destroy(f->dev);
	vdriver_finish(&f->d);
	close(f->fd);
	return 0;
}

/* One request with @len bytes of data at @gpa; returns its status. */
static int request(struct fixture *f, uint32_t type, uint64_t sector, uint64_t gpa, uint32_t len)
{
	struct virtio_blk_outhdr hdr = {.type = type, .sector = sector};
	bool write = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	uint64_t status = vdriver_put(&f->d, "\xff", 1);
	struct vdriver_buf bufs[] = {
		{vdriver_put(&f->d, &hdr, sizeof(hdr)), sizeof(hdr), false},
		{gpa, len, write},
		{status, 1, true},
	};
	struct vring_used_elem used;
	uint16_t head = vdriver_add(&f->d, 0, bufs, 3);

	vdriver_kick(&f->d, 0);
	assert_true(vdriver_wait_used(&f->d, 0, &used));
	assert_int_equal(used.id, head);
	assert_int_equal(used.len, type == VIRTIO_BLK_T_IN ? len + 1 : 1);
	return *(uint8_t *)vdriver_at(&f->d, status);
}

static void test_what_is_written_is_read(void **state)
{
	struct fixture *f = *state;
	uint64_t a = vdriver_alloc(&f->d, 8192), b = vdriver_alloc(&f->d, 8192);
	char image[SECTOR];

	create(f, false);
	memset(vdriver_at(&f->d, a), 'x', 8192);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 3, a, 8192), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(pread(f->fd, image, SECTOR, 3 * SECTOR), SECTOR);
	assert_memory_equal(image, vdriver_at(&f->d, a), SECTOR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 3, b, 8192), VIRTIO_BLK_S_OK);
	assert_memory_equal(vdriver_at(&f->d, a), vdriver_at(&f->d, b), 8192);
	assert_true(__atomic_load_n(&f->d.queues[0].interrupts, __ATOMIC_RELAXED) > 0);
	assert_int_equal(f->d.broken, 0);
}

static void test_impossible_requests_fail_alone(void **state)
{
	struct fixture *f = *state;
	uint64_t a = vdriver_alloc(&f->d, 4096);

	create(f, false);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, SECTORS, a, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, SECTORS - 1, a, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, UINT64_MAX, a, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, UINT64_MAX / 512 + 1, a, 512),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, a, 100), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, 12345, 0, a, 512), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(ftruncate(f->fd, SECTOR), 0); /* the image is cut short behind us */
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 5, a, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, a, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(f->d.broken, 0);
}

static blkcnt_t blocks(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_blocks;
}

static int clear(struct fixture *f, uint32_t type, uint64_t sector, uint32_t n, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = {.sector = sector,
							.num_sectors = n,
							.flags = flags};

	return request(f, type, 0, vdriver_put(&f->d, &range, sizeof(range)), sizeof(range));
}

static void test_discard_punches_holes(void **state)
{
	struct fixture *f = *state;
	uint64_t a = vdriver_alloc(&f->d, 65536);
	const uint32_t discard = VIRTIO_BLK_T_DISCARD, zero = VIRTIO_BLK_T_WRITE_ZEROES;
	blkcnt_t before;
	char byte;

	create(f, false);
	memset(vdriver_at(&f->d, a), 'x', 65536);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, a, 65536), VIRTIO_BLK_S_OK);
	before = blocks(f->fd);
	assert_int_equal(clear(f, discard, 16, 64, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(before - blocks(f->fd), 64);
	assert_int_equal(clear(f, zero, 8, 1, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(pread(f->fd, &byte, 1, 8 * SECTOR), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(pread(f->fd, &byte, 1, 9 * SECTOR), 1);
	assert_int_equal(byte, 'x');
	before = blocks(f->fd);
	assert_int_equal(clear(f, zero, 96, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
			 VIRTIO_BLK_S_OK);
	assert_int_equal(before - blocks(f->fd), 8);
	assert_int_equal(clear(f, discard, 0, 8, 1), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(clear(f, zero, 0, 8, 2), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(clear(f, discard, SECTORS - 1, 2, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(clear(f, discard, UINT64_MAX, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(clear(f, discard, 0, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, discard, 0, a, 15), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, discard, 0, a, 33 * 16), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, discard, 0, a, 0), VIRTIO_BLK_S_IOERR);
}

static void test_read_only_is_kept(void **state)
{
	struct fixture *f = *state;
	uint64_t a = vdriver_alloc(&f->d, 512);

	create(f, true);
	assert_true(f->dev->offered & 1u << VIRTIO_BLK_F_RO);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, a, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(clear(f, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, a, 512), VIRTIO_BLK_S_OK);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, a, 0), VIRTIO_BLK_S_OK);
}

static void test_configuration_and_serial(void **state)
{
	struct fixture *f = *state;
	uint64_t a = vdriver_alloc(&f->d, 20);
	struct virtio_blk_config config;

	create(f, false);
	f->dev->ops->config_read(f->dev, 0, &config, sizeof(config));
	assert_int_equal(config.capacity, SECTORS);
	assert_true(config.seg_max + 2 <= f->dev->queues[0].max_size);
	assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, a, 20), VIRTIO_BLK_S_OK);
	assert_string_equal(vdriver_at(&f->d, a), "root");
	assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, a, 3), VIRTIO_BLK_S_OK);
}

static void wait_broken(struct fixture *f)
{
	for (int i = 0;
	     i < bound_ms(VDRIVER_WAIT_MS) && !__atomic_load_n(&f->d.broken, __ATOMIC_ACQUIRE); i++)
		usleep(1000);
	assert_int_equal(f->d.broken, 1);
}

static void test_requests_without_status_break_the_device_until_reset(void **state)
{
	struct fixture *f = *state;
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_FLUSH};
	uint64_t gpa = vdriver_put(&f->d, &hdr, sizeof(hdr));
	struct vdriver_buf no_status[] = {{gpa, sizeof(hdr), false}};
	struct vdriver_buf short_hdr[] = {{gpa, 15, false}, {gpa, 1, true}};

	create(f, false);
	vdriver_add(&f->d, 0, no_status, 1);
	vdriver_kick(&f->d, 0);
	wait_broken(f);
	vdriver_stop(&f->d);
	f->d.broken = 0;
	vdriver_start(&f->d, f->dev, f->dev->offered);
	vdriver_add(&f->d, 0, short_hdr, 2);
	vdriver_kick(&f->d, 0);
	wait_broken(f);
	vdriver_stop(&f->d);
	f->d.broken = 0;
	vdriver_start(&f->d, f->dev, f->dev->offered);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, 0), VIRTIO_BLK_S_OK);
}

static void test_reset_waits_for_the_worker(void **state)
{
	struct fixture *f = *state;
	uint64_t a = vdriver_alloc(&f->d, 1 << 20);
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_IN};
	uint64_t hdr_gpa = vdriver_put(&f->d, &hdr, sizeof(hdr));

	f->d.lends_fds = false; /* notified() and a descriptor of its own this time */
	create(f, false);
	for (int round = 0; round < 50; round++) {
		uint8_t *byte = vdriver_at(&f->d, a);

		for (int i = 0; i < 16; i++) {
			struct vdriver_buf bufs[] = {{hdr_gpa, sizeof(hdr), false},
						     {a, SECTORS * SECTOR, true},
						     {a, 1, true}};

			vdriver_add(&f->d, 0, bufs, 3);
		}
		vdriver_kick(&f->d, 0);
		vdriver_stop(&f->d);
		*byte = 0xaa; /* nobody writes there any more */
		usleep(500);
		assert_int_equal(*byte, 0xaa);
		vdriver_start(&f->d, f->dev, f->dev->offered);
	}
}

/* A file in memory has no zeroes by fallocate(), so that they are written. */
static void test_reset_does_not_wait_for_all_the_zeroes_of_a_request(void **state)
{
	enum { RANGES = 32, RANGE = 256 << 20 };
	struct fixture *f = *state;
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_WRITE_ZEROES};
	struct virtio_blk_discard_write_zeroes ranges[RANGES];
	uint64_t status = vdriver_put(&f->d, "\xff", 1);

	assert_int_equal(ftruncate(f->fd, RANGE), 0);
	create(f, false);
	for (unsigned i = 0; i < RANGES; i++) /* the same, again and again */
		ranges[i] = (struct virtio_blk_discard_write_zeroes){.num_sectors = RANGE / SECTOR};
	vdriver_add(&f->d, 0,
		    (struct vdriver_buf[]){
			    {vdriver_put(&f->d, &hdr, sizeof(hdr)), sizeof(hdr), false},
			    {vdriver_put(&f->d, ranges, sizeof(ranges)), sizeof(ranges), false},
			    {status, 1, true},
		    },
		    3);
	vdriver_kick(&f->d, 0);
	while (!blocks(f->fd))
		usleep(100);
	vdriver_stop(&f->d);
	assert_int_equal(*(uint8_t *)vdriver_at(&f->d, status), VIRTIO_BLK_S_IOERR);
	vdriver_start(&f->d, f->dev, f->dev->offered);
}

/* Many requests at once, of all kinds, some of which take their time; each has its own part of the
 * image, which it must find as it left it. */
enum { PARTS = 16, PART_SECTORS = 8, PART = PART_SECTORS * SECTOR };

static const uint32_t kinds[] = {VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN,      VIRTIO_BLK_T_FLUSH,
				 VIRTIO_BLK_T_IN,  VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_IN};

struct part {
	struct virtio_blk_outhdr *hdr;
	struct virtio_blk_discard_write_zeroes *range;
	uint8_t *data, *status;
	uint64_t hdr_gpa, range_gpa, data_gpa, status_gpa;
};

static void make_part(struct fixture *f, struct part *p, unsigned i)
{
	p->hdr_gpa = vdriver_alloc(&f->d, sizeof(*p->hdr));
	p->range_gpa = vdriver_alloc(&f->d, sizeof(*p->range));
	p->data_gpa = vdriver_alloc(&f->d, PART);
	p->status_gpa = vdriver_alloc(&f->d, 1);
	p->hdr = vdriver_at(&f->d, p->hdr_gpa);
	p->range = vdriver_at(&f->d, p->range_gpa);
	p->data = vdriver_at(&f->d, p->data_gpa);
	p->status = vdriver_at(&f->d, p->status_gpa);
	*p->range = (struct virtio_blk_discard_write_zeroes){.sector = i * PART_SECTORS,
							     .num_sectors = PART_SECTORS};
}

static void ask(struct fixture *f, struct part *p, unsigned i, uint32_t type)
{
	struct vdriver_buf bufs[] = {{p->hdr_gpa, sizeof(*p->hdr), false},
				     {p->data_gpa, PART, type == VIRTIO_BLK_T_IN},
				     {p->status_gpa, 1, true}};

	*p->hdr = (struct virtio_blk_outhdr){.type = type, .sector = i * PART_SECTORS};
	*p->status = 0xff;
	if (type == VIRTIO_BLK_T_DISCARD) {
		bufs[1].gpa = p->range_gpa;
		bufs[1].len = sizeof(*p->range);
	}
	vdriver_add(&f->d, 0, bufs, 3);
}

static void test_slow_and_fast_requests_overlap(void **state)
{
	struct fixture *f = *state;
	static struct part parts[PARTS];
	static uint8_t want[PART], zeroes[PART];
	char path[] = "/var/tmp/blk-XXXXXX";

	close(f->fd);
	f->fd = mkstemp(path); /* of a file system that has a disk, where there is one */
	assert_true(f->fd >= 0);
	unlink(path);
	assert_int_equal(ftruncate(f->fd, SECTORS * SECTOR), 0);
	create(f, false);
	for (unsigned i = 0; i < PARTS; i++)
		make_part(f, &parts[i], i);
	for (unsigned round = 0; round < 60; round++) {
		uint32_t type = kinds[round % ARRAY_SIZE(kinds)];
		struct vring_used_elem used;

		posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
		for (unsigned i = 0; i < PARTS; i++) {
			memset(parts[i].data, (int)(i + round / 6), PART);
			if (type == VIRTIO_BLK_T_IN)
				memset(parts[i].data, 0xee, PART);
			ask(f, &parts[i], i,
			    i % 5 == 4 && type != VIRTIO_BLK_T_IN && type != VIRTIO_BLK_T_OUT
				    ? VIRTIO_BLK_T_FLUSH
				    : type);
			vdriver_kick(&f->d, 0);
		}
		for (unsigned i = 0; i < PARTS; i++)
			assert_true(vdriver_wait_used(&f->d, 0, &used));
		for (unsigned i = 0; i < PARTS; i++) {
			bool cleared = round % 6 == 5 && i % 5 != 4;

			assert_int_equal(*parts[i].status, VIRTIO_BLK_S_OK);
			if (type != VIRTIO_BLK_T_IN)
				continue;
			memset(want, (int)(i + round / 6), PART);
			assert_memory_equal(parts[i].data, cleared ? zeroes : want, PART);
		}
	}
	for (unsigned round = 0; round < 100; round++) { /* and resets in the middle of it all */
		for (unsigned i = 0; i < PARTS; i++)
			ask(f, &parts[i], i, kinds[(i + round) % ARRAY_SIZE(kinds)]);
		vdriver_kick(&f->d, 0);
		if (round % 3)
			usleep(50);
		vdriver_stop(&f->d);
		memset(parts[0].data, 0xaa, PART);
		assert_int_equal(parts[0].data[PART - 1], 0xaa);
		vdriver_start(&f->d, f->dev, f->dev->offered);
	}
	assert_int_equal(f->d.broken, 0);
}

static void test_bad_images_are_refused(void **state)
{
	struct fixture *f = *state;
	struct virtio_blk_opts opts = {.fd = f->fd, .path = "image"};
	struct pil_err err = {0};

	create(f, false);
	assert_int_equal(ftruncate(f->fd, 1000), 0);
	assert_int_equal(virtio_blk_create(NULL, &opts, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "image"));
	assert_int_equal(ftruncate(f->fd, 0), 0);
	assert_int_equal(virtio_blk_create(NULL, &opts, &err), -EINVAL);
	opts.fd = -1;
	assert_int_equal(virtio_blk_create(NULL, &opts, &err), -EBADF);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_written_is_read),
		T(impossible_requests_fail_alone),
		T(discard_punches_holes),
		T(read_only_is_kept),
		T(configuration_and_serial),
		T(requests_without_status_break_the_device_until_reset),
		T(reset_waits_for_the_worker),
		T(reset_does_not_wait_for_all_the_zeroes_of_a_request),
		T(slow_and_fast_requests_overlap),
		T(bad_images_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
