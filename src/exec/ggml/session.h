/* SPDX-License-Identifier: Apache-2.0
 *
 * session.h -- serves one program's stream until it ends, in a thread of its own. */
#ifndef PIL_SESSION_H
#define PIL_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "exec/ggml/device.h"
#include "wire/wire.h"

struct session_opts {
	int fd; /* taken, also on failure */
	const struct wire_hello *hello;
	const char *machine;
	uint64_t quota_bytes; /* 0: the whole device */
	unsigned weight;      /* see account_weigh() */
	bool shm_ok;          /* the stream can pass descriptors (AF_UNIX) */
};

/* Sends the welcome and serves the stream in a detached thread. */
int session_start(struct gg_device *device, const struct session_opts *opts,
		  struct pil_err *err) PIL_MUST_CHECK;

#endif
