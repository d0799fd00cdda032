/* SPDX-License-Identifier: Apache-2.0
 *
 * broker_watch.h -- sees to it that a broker answers, without ever waiting for it. */
#ifndef PIL_BROKER_WATCH_H
#define PIL_BROKER_WATCH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "config/state.h"
#include "machine/respawn.h"

struct broker_watch {     /* start with fd -1 */
	int fd;           /* to the broker's own socket; -1: none */
	unsigned unheard; /* ticks since it was asked, and has not answered */
	pid_t starting;   /* broker_spawn()'s; 0: none */
	int64_t due_ms;   /* for it to serve */
	struct respawn again;
};

/* Call every few seconds (@tick), and when @fd is readable: asks the broker for a sign; starts one
 * where none listens, at once and then less and less often while that fails; ends one that has not
 * answered HUNG_TICKS times. */
void broker_watch_tend(struct broker_watch *w, const struct state_dirs *dirs, bool tick);
void broker_watch_finish(struct broker_watch *w);

#endif
