/* SPDX-License-Identifier: Apache-2.0
 *
 * run: --console-fd 1
 * status: 0
 *
 * What is written to the console's queue comes out. */
#include "tiny.h"

static struct vdev console;
static struct vqueue out;
static const char text[] = "# hello from the console\n";

void tiny_main(void)
{
	ok(vdev_find(&console, 3), "there is a console");
	ok(vdev_negotiate(&console, V_FEATURES), "features are agreed on");
	vqueue_set_up(&console, &out, 1, 0xffff);
	vdev_driver_ok(&console);
	out.desc[0] = (struct vdesc){(uint64_t)text, sizeof(text) - 1, 0, 0};
	vqueue_offer(&console, &out, 0);
	ok(vqueue_used(&out, 1), "it takes the text");
}
