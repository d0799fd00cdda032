/* SPDX-License-Identifier: Apache-2.0
 *
 * control.h -- between the broker and an executor: a SOCK_SEQPACKET pair, one message per packet.
 * Both ends are ours and of one version; the broker still checks what an executor says, because the
 * executor runs code of vendors on data of guests.
 *
 * The broker closing its end means: take no more sessions, leave when the last one ends. */
#ifndef PIL_CONTROL_H
#define PIL_CONTROL_H

#include "base/str.h"
#include "wire/wire.h"

/* NUL-terminated, whole: who cuts a name makes two machines one. */
enum { CONTROL_NAME_BYTES = 72 };
static_assert(CONTROL_NAME_BYTES > (int)STR_MAX_NAME, "the name of a machine");

enum control_kind {
	CONTROL_OPEN =
		1,      /* struct control_open, with the descriptors of HOST_OPEN (broker/host.h) */
	CONTROL_QUERY,  /* struct control_open of which only the kind counts */
	CONTROL_REPORT, /* executor -> broker: when the device is open, and on each query */
	CONTROL_STUCK,  /* executor -> broker: struct control_stuck, the last thing it says */
};

struct control_open {
	uint32_t kind;         /* CONTROL_OPEN or CONTROL_QUERY */
	uint32_t max_sessions; /* of this machine on this card */
	struct wire_hello hello;
	char machine[CONTROL_NAME_BYTES];
	uint64_t quota_bytes; /* of the card; 0: all of it */
	uint32_t shm_ok;
	uint32_t weight; /* of its turns, 1 to 1000; 100 is normal */
};
static_assert(sizeof(struct control_open) == 224, "control_open");

struct control_report {
	uint32_t kind;
	uint32_t n_sessions; /* alive now */
	uint64_t memory_total;
	uint64_t memory_free;
	uint32_t n_faults; /* that it found in the card's ledger, see ledger_end::n_faults */
	uint32_t reserved;
};
static_assert(sizeof(struct control_report) == 32, "control_report");

/* The executor ends itself, since a graph of this machine does not end while others wait. */
struct control_stuck {
	uint32_t kind;
	uint32_t reserved;
	char machine[CONTROL_NAME_BYTES];
};
static_assert(sizeof(struct control_stuck) == 80, "control_stuck");

#endif
