/* SPDX-License-Identifier: Apache-2.0
 *
 * run:
 * status: 2
 *
 * A triple fault ends the machine as a panic does. */
#include "tiny.h"

void tiny_main(void)
{
	triple_fault();
}
