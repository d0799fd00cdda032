/* SPDX-License-Identifier: Apache-2.0
 *
 * control.h -- what the broker tells an executor: one SOCK_SEQPACKET message per session, with the
 * program's stream as its only descriptor.  Both ends are ours and of one version. */
#ifndef PIL_CONTROL_H
#define PIL_CONTROL_H

#include "wire.h"

struct control_open {
	struct wire_hello hello;
	char machine[WIRE_MAX_NAME]; /* NUL-terminated */
	uint64_t quota_bytes;        /* 0: the whole device */
	uint32_t shm_ok;
	uint32_t reserved;
};
static_assert(sizeof(struct control_open) == 208, "control_open");

#endif
