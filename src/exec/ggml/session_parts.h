/* SPDX-License-Identifier: Apache-2.0
 *
 * session_parts.h -- what the parts of a session share: session.c, session_data.c, session_graph.c.
 *
 * All of it is for the session's own thread. */
#ifndef PIL_SESSION_PARTS_H
#define PIL_SESSION_PARTS_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/log.h"
#include "exec/ggml/buffers.h"
#include "exec/ggml/device.h"
#include "exec/ggml/graphs.h"
#include "exec/ggml/run.h"
#include "exec/shms.h"
#include "exec/stream.h"
#include "exec/turn.h"
#include "wire/wire.h"

struct session {
	struct gg_device *device;
	struct account *account;
	struct turn turn;
	struct ggml_backend *backend;
	struct runner runner;
	struct stream stream;
	struct buffers buffers;
	struct graphs graphs;
	struct shms shms;
	unsigned n_lost; /* file_map_n_lost() when we looked last */
	bool shm_ok;
	uint16_t failed;     /* first failure since the last answer */
	uint32_t device_us;  /* device time since the last answer */
	uint32_t last_graph; /* run last, and how often in a row, unchanged */
	uint32_t same_runs;
	int64_t last_run_us;
	int64_t billed_us;   /* of this thread's processor time */
	int64_t turn_cpu_us; /* what that was when the turn began */
	unsigned n_commands; /* since we looked */
	unsigned n_asked;    /* whether to stop, by the graph that runs */
	time_t looked_s;     /* for the peer, during a graph of more than a second */
	bool gone;           /* it was not there */
	int followed_cpu;    /* -1: this thread may run on all_cpus */
	cpu_set_t all_cpus;
	char *scratch; /* data on its way to or from a device without host memory */
	char program[WIRE_MAX_NAME * 4];
};

extern struct log_limit session_errors; /* of any session's peer */

/* Answers command @op.  0 or -errno. */
int session_answer(struct session *s, uint16_t op, enum wire_status status);
int session_answer_data(struct session *s, uint16_t op, enum wire_status status, uint64_t value,
			const void *data, uint32_t bytes);

/* Remembers the failure of a command that is not answered.  Returns 0. */
int session_note(struct session *s, enum wire_status status);

/* There is no memory for the tail of a command.  0 or -errno. */
int session_refuse_tail(struct session *s, const struct wire_frame *f);

/* The turn to use the device.  Beginning may wait, and so may yielding, which is for between two
 * pieces of long work: others may go first. */
void session_begin_turn(struct session *s);
int64_t session_end_turn(struct session *s); /* microseconds used since the last of the three */
void session_yield_turn(struct session *s);
void session_add_used(struct session *s, int64_t used_us);

/* Has the program closed its end?  Nobody is going to read what we compute. */
bool session_peer_gone(struct session *s);

/* The commands.  0, or -errno to end the session. */
#define OP(number, NAME, name, fixed_type, tail, answers)                                          \
	int on_##name(struct session *s, const struct wire_frame *f, const fixed_type *c);
#include "wire/ops.def"
#undef OP

#endif
