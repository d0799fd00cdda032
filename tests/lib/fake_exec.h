/* SPDX-License-Identifier: Apache-2.0
 *
 * fake_exec.h -- an executor for tests of the plugin: keeps buffers, computes nothing, and insists
 * on the rules of wire.h. */
#ifndef PIL_FAKE_EXEC_H
#define PIL_FAKE_EXEC_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/ggml/ggml.h"

enum { FAKE_EXEC_BUFFERS = 16 };

struct fake_exec {
	int fd;
	pthread_t thread;
	/* set before fake_exec_start() */
	uint32_t flags;       /* enum wire_welcome_flags */
	enum wire_status run; /* what GRAPH_RUN comes to */
	/* set at any time */
	atomic_int die_after; /* so many more frames; 0: never */
	/* what was seen; read after fake_exec_finish() or under a command that was answered */
	unsigned count[WIRE_MAX_OPS];
	unsigned reads; /* system calls it took to receive all */
	uint8_t *buffers[FAKE_EXEC_BUFFERS];
	uint64_t bytes[FAKE_EXEC_BUFFERS];
	uint32_t handles[FAKE_EXEC_BUFFERS];
	struct wire_weight weight; /* the last one */
	bool bad;                  /* a frame broke a rule */
	uint16_t failed;
	uint8_t *shm[WIRE_MAX_SHM];
	uint64_t shm_bytes[WIRE_MAX_SHM];
};

struct fake_welcome {
	struct wire_welcome head;
	struct gg_welcome body;
};

/* The welcome it sends, with the types F32, Q8_0 and I32. */
void fake_exec_welcome(struct fake_welcome *w, uint32_t flags);

/* Starts it in a thread; returns the program's end of the stream. */
int fake_exec_start(struct fake_exec *x);
void fake_exec_finish(struct fake_exec *x); /* after the program's end was closed */

#endif
