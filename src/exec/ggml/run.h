/* SPDX-License-Identifier: Apache-2.0
 *
 * run.h -- computes a session's graphs, long ones in slices between which others have their turn.
 *
 * Not thread-safe: a session's thread owns its runner. */
#ifndef PIL_RUN_H
#define PIL_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "exec/ggml/graphs.h"
#include "exec/turn.h"

enum { RUN_SLICE_US = 100000 };

struct runner {
	struct gg_device *device;
	struct ggml_backend *backend;
	struct turn *turn; /* held while in runner_run() */
	bool (*must_stop)(void *ctx);
	void *ctx;
	double speed; /* of the device here, in those of the slow core that op_cost.h speaks of */
	int64_t slice_us; /* what a slice is to take: RUN_SLICE_US */
};

void runner_init(struct runner *r, struct gg_device *device, struct turn *turn);

/* Computes the graph of @run in the turn that the caller holds, from @part, its first part, on. The
 * microseconds of all slices but the last, which ends with the turn, are added to @used_us.
 * WIRE_E_INVALID with @why: an index that the graph computed is out of range. */
enum wire_status runner_run(struct runner *r, struct graphs *graphs, struct graphs_run *run,
			    struct ggml_cgraph *part, int64_t *used_us, const char **why);

#endif
