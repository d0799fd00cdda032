/* SPDX-License-Identifier: Apache-2.0
 *
 * executors.h -- the table of devices and the executor process of each. */
#ifndef PIL_EXECUTORS_H
#define PIL_EXECUTORS_H

#include <stdbool.h>

#include "control.h"
#include "jail.h"
#include "wire.h"

struct executor {
	uint32_t ggml_index; /* of the device in ggml's own order */
	pid_t pid;           /* of bwrap; 0: not running */
	int control_fd;
	int64_t started_ms;
	unsigned failures; /* starts in a row that ended within a second */
};

struct executors {
	const struct jail *jail;
	struct wire_device devices[WIRE_MAX_DEVICES]; /* as machines see them; index = position */
	struct executor executor[WIRE_MAX_DEVICES];
	int n;
};

/* Asks ggml in the jail which devices there are; at most 30 s.  The host CPU is listed, as the
 * reference device, when there is nothing else or the config says always. */
int executors_init(struct executors *x, const struct jail *jail,
		   struct pil_err *err) PIL_MUST_CHECK;
void executors_finish(
	struct executors *x); /* lets go of them: they leave after their last session */

/* Hands @stream_fd (borrowed) to the executor of device @index, starting it if it is not there. */
enum wire_status executors_open(struct executors *x, uint32_t index,
				const struct control_open *open, int stream_fd);

/* Reaps what has ended; call on SIGCHLD or now and then. */
void executors_reap(struct executors *x);

#endif
