/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/virtio_balloon.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "lib/vdriver.h"
#include "virtio/virtio_balloon.h"

enum { INFLATE, DEFLATE, REPORT = 4, MIB = 1 << 20, PAGE = 4096 };

struct fixture {
	struct vdriver d;
	struct virtio_device *dev;
};

static int setup(void **state)
{
	static struct fixture f;

	memset(&f, 0, sizeof(f));
	vdriver_init(&f.d);
	assert_int_equal(virtio_balloon_create(&f.dev, NULL), 0);
	vdriver_start(&f.d, f.dev, f.dev->offered);
	memset(vdriver_at(&f.d, VDRIVER_HIGH_GPA), 0x55, VDRIVER_RANGE_BYTES);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vdriver_stop(&f->d);
	f->dev->ops->destroy(f->dev);
	vdriver_finish(&f->d);
	return 0;
}

static uint64_t held(struct fixture *f) /* bytes of host memory behind the guest */
{
	struct stat st;

	assert_int_equal(fstat(f->d.mem.fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void test_reported_ranges_are_freed_in_turns(void **state)
{
	struct fixture *f = *state;
	struct vdriver_buf ranges[6];
	struct vring_used_elem used;
	uint64_t before = held(f);
	int turns = 0;

	for (unsigned i = 0; i < 6; i++)
		ranges[i] = (struct vdriver_buf){VDRIVER_HIGH_GPA + (uint64_t)i * MIB, MIB, true};
	vdriver_add(&f->d, REPORT, ranges, 6);
	vdriver_kick(&f->d, REPORT);
	assert_false(vdriver_used(&f->d, REPORT, &used)); /* not while some are left */
	while (vdriver_again(&f->d))
		turns++;
	assert_true(turns >= 1);
	assert_true(vdriver_used(&f->d, REPORT, &used));
	assert_true(before - held(f) == 6 * MIB);
	assert_true(virtio_balloon_stats(f->dev).reported_bytes == 6 * MIB);
	assert_int_equal(*(uint8_t *)vdriver_at(&f->d, VDRIVER_HIGH_GPA), 0);
	assert_int_equal(*(uint8_t *)vdriver_at(&f->d, VDRIVER_HIGH_GPA + 6 * MIB), 0x55);
}

static void test_a_guest_that_poisons_keeps_its_pages(void **state)
{
	struct fixture *f = *state;
	struct vdriver_buf range = {VDRIVER_HIGH_GPA, MIB, true};
	struct vring_used_elem used;
	uint32_t poison = 0xaa;
	uint64_t before = held(f);

	f->dev->ops->config_write(f->dev, offsetof(struct virtio_balloon_config, poison_val),
				  &poison, 4);
	vdriver_add(&f->d, REPORT, &range, 1);
	vdriver_kick(&f->d, REPORT);
	assert_true(vdriver_used(&f->d, REPORT, &used));
	assert_true(before == held(f));
}

static void test_a_driver_that_leaves_no_holes_between_queues(void **state)
{
	struct fixture *f = *state;
	struct vdriver_buf range = {VDRIVER_HIGH_GPA, MIB, true};
	struct vring_used_elem used;

	vdriver_stop(&f->d);
	vdriver_start(&f->d, f->dev, 1u << VIRTIO_BALLOON_F_REPORTING);
	f->dev->queues[3].enabled = f->dev->queues[4].enabled = false;
	vdriver_add(&f->d, 2, &range, 1);
	vdriver_kick(&f->d, 2);
	assert_true(vdriver_used(&f->d, 2, &used));
	assert_true(virtio_balloon_stats(f->dev).reported_bytes == MIB);
}

static void test_inflating_frees_pages(void **state)
{
	struct fixture *f = *state;
	uint32_t pfns[700], first = (uint32_t)(VDRIVER_HIGH_GPA / PAGE);
	struct vdriver_buf buf = {0, sizeof(pfns), false};
	struct vring_used_elem used;
	uint64_t before;

	for (uint32_t i = 0; i < 300; i++)
		pfns[i] = first + 999 - i; /* downwards, as Linux does */
	for (uint32_t i = 300; i < 700; i++)
		pfns[i] = first + 1000 + 2 * i;
	buf.gpa = vdriver_put(&f->d, pfns, sizeof(pfns));
	before = held(f);
	vdriver_add(&f->d, INFLATE, &buf, 1);
	vdriver_kick(&f->d, INFLATE);
	assert_true(vdriver_used(&f->d, INFLATE, &used));
	/* the highest of them lie behind the memory's end */
	assert_true(virtio_balloon_stats(f->dev).inflated_bytes +
			    PAGE * virtio_balloon_stats(f->dev).refused ==
		    700 * PAGE);
	assert_true(before - held(f) == virtio_balloon_stats(f->dev).inflated_bytes);
	assert_int_equal(*(uint8_t *)vdriver_at(&f->d, VDRIVER_HIGH_GPA + 700 * PAGE), 0);
	assert_int_equal(*(uint8_t *)vdriver_at(&f->d, VDRIVER_HIGH_GPA + 699 * PAGE), 0x55);
	vdriver_add(&f->d, DEFLATE, &buf, 1);
	vdriver_kick(&f->d, DEFLATE);
	assert_true(vdriver_used(&f->d, DEFLATE, &used));
}

static void test_nonsense_is_counted_and_harmless(void **state)
{
	struct fixture *f = *state;
	static const uint32_t pfns[] = {UINT32_MAX, 0x80000, UINT32_MAX - 1};
	struct vdriver_buf odd = {vdriver_put(&f->d, pfns, sizeof(pfns)), sizeof(pfns) - 1, false};
	struct vdriver_buf in = {VDRIVER_HIGH_GPA, 5, true};
	struct vring_used_elem used;

	vdriver_add(&f->d, INFLATE, &odd, 1);
	vdriver_add(&f->d, INFLATE, &in, 1);
	vdriver_kick(&f->d, INFLATE);
	assert_true(vdriver_used(&f->d, INFLATE, &used));
	assert_true(vdriver_used(&f->d, INFLATE, &used));
	assert_int_equal(virtio_balloon_stats(f->dev).refused, 2);
	vdriver_add(&f->d, REPORT, &in, 1); /* less than a page */
	vdriver_kick(&f->d, REPORT);
	vdriver_kick(&f->d, 2);
	vdriver_kick(&f->d, 3);
	assert_int_equal(*(uint8_t *)vdriver_at(&f->d, VDRIVER_HIGH_GPA), 0x55);
	assert_int_equal(f->d.broken, 0);
}

static void test_the_target_is_told(void **state)
{
	struct fixture *f = *state;
	struct virtio_balloon_config config;
	uint32_t values[2] = {77, 88};

	virtio_balloon_set_target(f->dev, 64 * MIB);
	assert_int_equal(f->d.config_changes, 1);
	f->dev->ops->config_write(f->dev, 0, values, 8); /* num_pages is not the driver's */
	f->dev->ops->config_read(f->dev, 0, &config, sizeof(config));
	assert_int_equal(config.num_pages, 64 * MIB / PAGE);
	assert_int_equal(virtio_balloon_stats(f->dev).actual_pages, 88);
}

#define T(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(reported_ranges_are_freed_in_turns),
		T(a_guest_that_poisons_keeps_its_pages),
		T(a_driver_that_leaves_no_holes_between_queues),
		T(inflating_frees_pages),
		T(nonsense_is_counted_and_harmless),
		T(the_target_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
