/* SPDX-License-Identifier: Apache-2.0
 *
 * emulated.h -- for tests that cannot run under an emulator of user programs (qemu-aarch64): what
 * they look at, the kernel's view of this process, is that of the emulator there. */
#ifndef PIL_TEST_EMULATED_H
#define PIL_TEST_EMULATED_H

#include <stdio.h>
#include <stdlib.h>

/* Skips the test that calls it where PILLION_EMULATED is set.  Included after <cmocka.h>. */
static inline void skip_if_emulated(const char *what)
{
	if (!getenv("PILLION_EMULATED"))
		return;
	printf("# skipped: under emulation, %s\n", what);
	skip();
}

#endif
