/* SPDX-License-Identifier: Apache-2.0
 *
 * hop.h -- carrying a call from a vCPU's thread to the thread of the loop.
 *
 * Devices live on the loop's thread.  A vCPU that writes a register which matters to a device hops
 * there and waits for the answer, as a processor waits for its device. */
#ifndef PIL_HOP_H
#define PIL_HOP_H

#include <pthread.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "base/loop.h"

struct hop {
	struct loop_source source; /* an eventfd */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	void (*call)(void *arg); /* what is asked for; NULL: free for the next vCPU */
	void *arg;
	unsigned long done; /* calls answered so far */
	bool closed;
};

int hop_init(struct hop *hop, struct loop *loop) PIL_MUST_CHECK; /* 0 or -errno */
void hop_finish(struct hop *hop);

/* Runs @call(@arg) on the loop's thread and returns when it has; not at all once closed.  The
 * caller holds no lock. */
void hop_call(struct hop *hop, void (*call)(void *arg), void *arg);

/* Called on the loop's thread when it stops for good: nobody waits any longer. */
void hop_close(struct hop *hop);

#endif
