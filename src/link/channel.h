/* SPDX-License-Identifier: Apache-2.0
 *
 * channel.h -- one ordered stream of commands from this process to the executor of one device.
 *
 * Commands are queued and go out together when somebody has to wait for an answer, when the queue
 * is full, or at channel_flush().  A channel dies once, with one line on stderr: when the executor
 * goes away or breaks the protocol.  On a dead channel nothing waits: commands are dropped, what
 * was to be read is zeroes, and callers that can fail do.
 *
 * Everything but channel_create() wants the channel locked. */
#ifndef PIL_CHANNEL_H
#define PIL_CHANNEL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "base/err.h"
#include "wire/api.h"

enum {
	CHANNEL_MAX_PENDING = 512,
	CHANNEL_OUT_BYTES = 256 << 10,
	CHANNEL_IN_BYTES = 64 << 10,
	CHANNEL_MAX_INLINE = 64 << 10, /* data of at most this is copied into the queue */
};

/* Where to find the broker, and who asks; see target.h. */
struct channel_target {
	const struct wire_api *api;
	char broker[108];
	uint8_t token[WIRE_TOKEN_BYTES];
};

/* Where the data of an answer goes: @n_rows rows of @row_bytes, @stride apart. */
struct channel_dest {
	void *data;
	uint64_t n_rows, row_bytes, stride;
};

struct channel_pending {
	uint16_t op;
	uint64_t seq;
	struct channel_dest dest;
	struct wire_answer *answer; /* of a caller who waits; may be NULL */
};

struct channel_event {
	bool wanted, done;
	uint16_t status; /* enum wire_status, once done */
};

struct channel_slots { /* handles of one kind */
	uint32_t limit;
	uint32_t n_used;
	uint32_t next;
	uint16_t *generation; /* [limit]; bit 15: in use */
};

struct channel {
	pthread_mutex_t lock;
	int fd;
	bool dead;
	uint16_t failed; /* enum wire_status: what went wrong since somebody asked last */
	const struct wire_api *api;
	struct wire_welcome welcome;
	void *welcome_body; /* api->welcome_bytes */
	int stall_ms;       /* an answer that takes longer ends the channel */

	uint8_t *out;
	uint32_t out_len;
	uint64_t seq;  /* of the command queued last */
	uint64_t done; /* all up to here are known to be carried out */
	uint64_t need; /* channel_synchronize() must wait for this one */
	uint64_t sent; /* all up to here were handed to the kernel */

	struct channel_pending pending[CHANNEL_MAX_PENDING];
	uint32_t pending_first, n_pending;
	uint8_t *in;
	uint32_t in_pos, in_len;

	uint64_t run_seq; /* the last command that uses device time ... */
	uint32_t *run_us; /* ... and where its device time is kept */
	uint32_t n_runs;  /* since the last answer */

	struct channel_slots buffers, shms, events;
	struct channel_event event[WIRE_MAX_EVENTS];
};

/* Asks the broker for the devices that the API reaches; at most @max.  0 or -errno with @err. */
int channel_list(const struct channel_target *target, struct wire_device *devices, uint32_t max,
		 uint32_t *n, struct pil_err *err) PIL_MUST_CHECK;

/* Opens a session with device @index.  0 or -errno with @err. */
int channel_create(struct channel **out, const struct channel_target *target, uint32_t index,
		   struct pil_err *err) PIL_MUST_CHECK;
/* The part after the broker's answer: @fd (taken in any case) is a stream to an executor. */
int channel_create_fd(struct channel **out, const struct wire_api *api, int fd,
		      struct pil_err *err) PIL_MUST_CHECK;
void channel_destroy(struct channel *chan); /* NULL is fine */

/* Queues a command with its tail.  Returns its place in the order, 0 on a dead channel.  A tail
 * that does not fit the queue is sent from @tail at once, so it may be reused on return. */
uint64_t channel_queue(struct channel *chan, uint16_t op, const void *fixed, const void *tail,
		       uint32_t tail_bytes);

/* Says where the answer of the command just queued, @op, goes; both may be NULL. */
void channel_expect(struct channel *chan, uint16_t op, const struct channel_dest *dest,
		    struct wire_answer *answer);

/* Queues @op, sends, and waits for the answer.  Returns its status; WIRE_E_EXECUTOR when dead. */
enum wire_status channel_call(struct channel *chan, uint16_t op, const void *fixed,
			      const void *tail, uint32_t tail_bytes,
			      const struct channel_dest *dest, struct wire_answer *answer);

bool channel_flush(struct channel *chan);              /* false: dead */
bool channel_wait(struct channel *chan, uint64_t seq); /* until @seq is carried out */

/* Waits for what a program may rely on: runs and reads.  No system call when there is nothing. */
bool channel_synchronize(struct channel *chan);

/* Announces @fd (borrowed) as shared memory, or a file of weights.  The handle, or 0 if the
 * executor does not want it. */
uint32_t channel_shm_add(struct channel *chan, int fd, uint64_t bytes, enum wire_shm_kind kind);
void channel_shm_drop(struct channel *chan, uint32_t shm);

/* A handle for an event, to be named in a command that posts work; 0: all are in use.  Then, once
 * that command is queued, either channel_event_want() and channel_event_wait(), which returns what
 * the work came to (WIRE_E_EXECUTOR: the channel is dead), or channel_event_drop(). */
uint32_t channel_event_new(struct channel *chan);
void channel_event_want(struct channel *chan, uint32_t event);
enum wire_status channel_event_wait(struct channel *chan, uint32_t event);
void channel_event_drop(struct channel *chan, uint32_t event);

/* A free handle of a kind, 0 if there is none; and back. */
uint32_t channel_slot_take(struct channel_slots *slots);
void channel_slot_give(struct channel_slots *slots, uint32_t handle);

/* Ends the channel, saying why once. */
void channel_fail(struct channel *chan, const char *fmt, ...) PIL_PRINTF(2, 3);

#endif
