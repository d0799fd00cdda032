/* SPDX-License-Identifier: Apache-2.0
 *
 * vhost_user.h -- the front end's side of the vhost-user protocol: queues of a device are served by
 * another process, which maps the guest's memory.
 *
 * The back end is not trusted: its answers are bounded and checked, and one that is wrong, or fails
 * to come, ends the connection.  One thread, that of the loop. */
#ifndef PIL_VHOST_USER_H
#define PIL_VHOST_USER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/loop.h"

struct guest_mem;
struct virtq;

enum vhost_user_state {
	VHOST_USER_CLOSED,
	VHOST_USER_ASKED_FEATURES,
	VHOST_USER_ASKED_PROTOCOL,
	VHOST_USER_READY,
	VHOST_USER_NUM_STATES,
};

enum {
	VHOST_USER_STOP_MS = 1000, /* for a back end to let go of a queue */
	VHOST_USER_MAX_ANSWER = 12 + 8,
};

struct vhost_user {
	struct loop_source source; /* the fd is ours; -1 while closed */
	enum vhost_user_state state;
	uint64_t features; /* what the back end offers */
	uint8_t answer[VHOST_USER_MAX_ANSWER];
	unsigned have; /* bytes of answer[] */
	/* The back end has told what it can do: vhost_user_start() may be called. */
	void (*ready)(struct vhost_user *vu);
	/* The connection has ended, after it was closed; @why is a static string. */
	void (*gone)(struct vhost_user *vu, const char *why);
};

/* Takes @fd, a connected Unix stream socket, and asks what its back end can do.  @vu is zeroed but
 * for the callbacks.  0, or -errno and @fd is closed. */
int vhost_user_attach(struct vhost_user *vu, struct loop *loop, int fd) PIL_MUST_CHECK;
void vhost_user_close(struct vhost_user *vu); /* without gone(); closed is fine */

/* Hands the guest's memory over, with the features the driver agreed on. */
int vhost_user_start(struct vhost_user *vu, const struct guest_mem *mem,
		     uint64_t features) PIL_MUST_CHECK;

/* Hands queue number @index over: it goes on at q->next_avail.  The eventfds are borrowed. */
int vhost_user_start_queue(struct vhost_user *vu, unsigned index, const struct virtq *q,
			   int kick_fd, int call_fd) PIL_MUST_CHECK;

/* Takes a queue back; waits VHOST_USER_STOP_MS at most.  -errno: the connection is unusable, and it
 * is unknown whether the back end still uses the queue. */
int vhost_user_stop_queue(struct vhost_user *vu, unsigned index) PIL_MUST_CHECK;

#endif
