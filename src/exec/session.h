/* SPDX-License-Identifier: Apache-2.0
 *
 * session.h -- serves one program's stream until it ends, in a thread of its own, whichever API it
 * speaks.
 *
 * session_start() may be called by any thread; the rest is for the session's own, where nothing
 * else is said. */
#ifndef PIL_SESSION_H
#define PIL_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/log.h"
#include "exec/account.h"
#include "exec/api.h"
#include "exec/shms.h"
#include "exec/stream.h"
#include "exec/turn.h"
#include "exec/work.h"

struct session_opts {
	int fd; /* taken, also on failure */
	const struct wire_hello *hello;
	const char *machine;
	uint64_t quota_bytes; /* 0: the whole card */
	unsigned weight;      /* see account_weigh() */
	bool shm_ok;          /* the stream can pass descriptors (AF_UNIX) */
};

struct session {
	const struct exec_api *api;
	void *dev;   /* what exec_api::open() opened; borrowed */
	void *state; /* exec_api::begin()'s; NULL: it has not begun */
	struct account *account;
	struct turn turn;
	struct stream stream;
	struct shms shms;
	struct work *work; /* NULL: none has been posted, nor asked for */
	bool shm_ok;
	struct wire_memory memory; /* the last answer to MEMORY */
	uint16_t failed;           /* first failure since the last answer */
	uint32_t device_us;        /* device time since the last answer */
	unsigned n_lost;           /* file_map_n_lost() when we looked last */
	int64_t billed_us;         /* of this thread's processor time */
	int64_t turn_cpu_us;       /* what that was when the turn began */
	unsigned n_commands;       /* since we looked */
	unsigned n_asked;          /* how often session_must_stop() was asked */
	time_t looked_s;           /* for the peer, during work of more than a second */
	bool gone;                 /* it was not there */
	char *scratch;             /* data on its way to or from memory that is not the host's */
	char program[WIRE_MAX_NAME * 4];
};

/* Sends the welcome and serves the stream in a detached thread. */
int session_start(const struct exec_api *api, void *dev, struct card *card,
		  const struct session_opts *opts, struct pil_err *err) PIL_MUST_CHECK;

extern struct log_limit session_errors; /* of any session's peer */

/* Reads and drops the tail of a command, for whose data there is no memory.  WIRE_E_NO_MEMORY or
 * -errno. */
int session_refuse_tail(struct session *s, const struct wire_frame *f);

/* WIRE_MAX_DATA bytes for data that passes through; NULL: no memory. */
char *session_scratch(struct session *s);

/* The turn to use the device.  Beginning may wait, and so may yielding, which is for between two
 * pieces of long work: others may go first. */
void session_begin_turn(struct session *s);
int64_t session_end_turn(struct session *s); /* microseconds used since the last of the three */
void session_yield_turn(struct session *s);
void session_add_used(struct session *s, int64_t used_us);

/* Has the program closed its end?  Nobody is going to read what we compute. */
bool session_peer_gone(struct session *s);

/* Is what runs in the session's turn to be given up?  Cheap: for between two steps of it. */
bool session_must_stop(void *session);

/* mem.c: the commands of mem.def; as exec_api::command(). */
int mem_command(struct session *s, const struct wire_frame *f, const void *fixed,
		struct reply *reply);
bool mem_is_long(const struct wire_frame *f);

#endif
