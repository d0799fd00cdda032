/* SPDX-License-Identifier: Apache-2.0
 *
 * commands.h -- what a session that speaks ggml has beyond exec/session.h.
 *
 * All of it is for the session's own thread. */
#ifndef PIL_GGML_COMMANDS_H
#define PIL_GGML_COMMANDS_H

#include <sched.h>
#include <stdint.h>

#include "api/ggml/ggml.h"
#include "exec/ggml/buffers.h"
#include "exec/ggml/device.h"
#include "exec/ggml/graphs.h"
#include "exec/ggml/run.h"
#include "exec/session.h"

struct gg_session {
	struct session *s;
	struct gg_device *device;
	struct ggml_backend *backend;
	struct runner runner;
	struct buffers buffers;
	struct graphs graphs;
	uint32_t last_graph; /* run last, and how often in a row, unchanged */
	uint32_t same_runs;
	int64_t last_run_us;
	int followed_cpu; /* -1: this thread may run on all_cpus */
	cpu_set_t all_cpus;
};

/* exec_api::command() and is_long(). */
int gg_command(void *state, const struct wire_frame *f, const void *fixed, struct reply *reply);
bool gg_command_is_long(const struct wire_frame *f);

extern const struct exec_api exec_api_ggml;

#endif
