/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.h -- buffered frames on a stream socket.
 *
 * Reading gathers whatever has arrived with one system call and hands out frames in place.  Answers
 * gather too and leave with the data of a GET, or when there is nothing more to read: one wake-up
 * and one write per batch of commands.
 *
 * What is kept for a peer that dawdles is STREAM_IN_BYTES, or what its account pays for. */
#ifndef PIL_STREAM_H
#define PIL_STREAM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/api.h"

enum { STREAM_MAX_FDS = 8, STREAM_OUT_BYTES = 4096, STREAM_IN_BYTES = 256 << 10 };

struct account;

struct stream {
	int fd;                  /* owned */
	struct account *account; /* borrowed: what @in takes more is held there */
	const struct wire_api *api;
	const struct wire_op *op; /* of the frame read last */
	uint8_t *in;
	size_t in_cap, in_pos, in_end; /* unread: [in_pos, in_end) */
	int fds[STREAM_MAX_FDS];       /* received, not claimed yet, oldest first */
	int n_fds;
	uint8_t out[STREAM_OUT_BYTES];
	size_t out_len;
	pthread_mutex_t write_lock; /* held while something whole is written */
};

/* Takes @fd; 0 or -errno. */
int stream_init(struct stream *s, int fd, const struct wire_api *api, struct account *account);
void stream_finish(struct stream *s);

/* Waits for the next frame header and its fixed part.  1: *@frame is valid, its operation is
 * stream::op, and *@fixed (8-byte aligned, op->fixed_bytes long) may be used until the next call;
 * 0: the peer ended the stream between frames; -errno otherwise (-EPROTO: it broke the rules). */
int stream_next(struct stream *s, struct wire_frame *frame, const void **fixed);

/* The tail of the current frame, all of it, aligned; NULL on a broken stream.  Larger ones than
 * STREAM_IN_BYTES take a stream_reserve() first, which says false where there is no memory. */
const uint8_t *stream_tail(struct stream *s, const struct wire_frame *frame);
bool stream_reserve(struct stream *s, const struct wire_frame *frame);

/* Or: its next @bytes, a multiple of 8 and few, of which the caller knows that they are in it. */
const uint8_t *stream_part(struct stream *s, size_t bytes);

/* Or: copies the tail to @into, straight from the socket where it has not been read yet. */
int stream_tail_into(struct stream *s, const struct wire_frame *frame, void *into);

/* Or: forgets it. */
int stream_tail_skip(struct stream *s, const struct wire_frame *frame);

int stream_claim_fd(struct stream *s); /* the oldest received descriptor, or -1 */

/* Queues an answer; with @len > 0 it leaves at once together with @data. */
int stream_answer(struct stream *s, const struct wire_answer *answer, const void *data, size_t len);
int stream_flush(struct stream *s);

/* Sends an answer that waits for none before it: for another thread than the stream's own. */
int stream_event(struct stream *s, const struct wire_answer *event);

#endif
