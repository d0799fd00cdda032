/* SPDX-License-Identifier: Apache-2.0
 *
 * work.h -- work that goes on after its command was carried out, and the events that tell of it.
 *
 * work_done() is for any thread; the rest for the session's own. */
#ifndef PIL_WORK_H
#define PIL_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "wire/wire.h"

struct session;
struct work;

/* Computes; runs in a turn of the machine's, and must end.  @arg is the caller's. */
typedef enum wire_status (*work_fn)(void *state, uint64_t arg);

/* Lets @fn compute, after all that was posted before, and ends the event @event (0: none) with what
 * it returns.  Waits while WIRE_MAX_EVENTS are under way.  WIRE_OK, WIRE_E_NO_MEMORY or -errno. */
int work_post(struct session *s, uint32_t event, work_fn fn, uint64_t arg) PIL_MUST_CHECK;

/* For a library with threads of its own: work for @event begins, as one that was posted, and is
 * over.  work_done() may be called before work_begin() has returned, and never waits. */
int work_begin(struct session *s, uint32_t event) PIL_MUST_CHECK;
void work_done(struct session *s, uint32_t event, enum wire_status status);

/* EVENT_WANT and EVENT_DROP.  WIRE_OK or -errno. */
int work_want(struct session *s, uint32_t event) PIL_MUST_CHECK;
int work_drop(struct session *s, uint32_t event) PIL_MUST_CHECK;

/* Waits until nothing is under way.  0 or -errno. */
int work_drain(struct session *s) PIL_MUST_CHECK;

/* What work without an event came to, first failure first; and the device time used.  Both since
 * they were last asked for. */
enum wire_status work_failed(struct session *s);
uint32_t work_used_us(struct session *s);

/* At the end of a session, whose stream is of no use any more: what is computed now is waited for,
 * what has not begun is forgotten.  Then the API ends what its library has begun, and calls
 * work_done() no more.  Then work_destroy(). */
void work_stop(struct session *s);
void work_destroy(struct session *s);

#endif
