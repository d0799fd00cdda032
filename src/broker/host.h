/* SPDX-License-Identifier: Apache-2.0
 *
 * host.h -- between the broker and this user's own processes on the host: the gates of machines,
 * their supervisors, the command line.  A SOCK_SEQPACKET socket that no machine sees, one message
 * per packet, an answer to each request.  All ends are ours and of one version. */
#ifndef PIL_HOST_H
#define PIL_HOST_H

#include <assert.h>

#include "wire/control.h"
#include "wire/wire.h"

enum host_kind {
	HOST_PING = 1, /* are you there? */
	/* The devices that hello.api reaches; @machine empty: for the host itself, which needs no
	 * token. */
	HOST_LIST,
	/* A program's stream for the executor of a device.  Two descriptors: the stream, and one
	 * end of a pipe that is closed when nobody but the session holds the stream any more.
	 * Until then the sender keeps its own copy, so that nobody but it or the session ever
	 * drops the last reference of what a guest has queued there. */
	HOST_OPEN,
	HOST_WAYS, /* the cards, and what leads to them; for the host itself */
};
enum { HOST_FDS = 2 };

struct host_request {
	uint32_t kind;
	uint32_t reserved;
	char machine[CONTROL_NAME_BYTES];
	struct wire_hello hello; /* as the program sent it */
};
static_assert(sizeof(struct host_request) == 208, "host_request");

struct host_answer {     /* HOST_OPEN: the program has been answered */
	uint32_t kind;   /* of the request */
	uint32_t status; /* enum wire_status */
	uint32_t n_devices;
	uint32_t reserved;
	struct wire_device devices[WIRE_MAX_DEVICES]; /* only so many are sent */
};

/* One way to a card: an API, by a runtime.  Those of one card follow each other. */
struct host_way {
	struct wire_device device; /* with the card, and the device's place in the table */
	uint64_t held_bytes;       /* of the card, by all machines, whichever way */
	uint32_t n_sessions;       /* of this way */
	uint32_t reserved;
	char runtime[160]; /* where its libraries are from */
};
static_assert(sizeof(struct host_way) == sizeof(struct wire_device) + 176, "host_way");

struct host_ways { /* the answer to HOST_WAYS */
	uint32_t kind, status;
	uint32_t n_ways;
	uint32_t reserved;
	struct host_way ways[WIRE_MAX_DEVICES]; /* only so many are sent */
};

#endif
