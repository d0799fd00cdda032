/* SPDX-License-Identifier: Apache-2.0
 *
 * executors.h -- the table of devices, the executor process of each, and the card that it leads to.
 * Nothing here blocks. */
#ifndef PIL_EXECUTORS_H
#define PIL_EXECUTORS_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/backoff.h"
#include "base/list.h"
#include "base/log.h"
#include "base/loop.h"
#include "broker/cards.h"
#include "broker/host.h"
#include "broker/jail.h"
#include "wire/control.h"
#include "wire/wire.h"

struct executor {
	struct executors *table;
	struct list link;                 /* executors::own; of a device's row: on no list */
	char machine[CONTROL_NAME_BYTES]; /* whose program it serves alone; "": it serves all */
	struct wire_device device;        /* as machines see it; index = position in the table */
	struct cards_row *card;           /* that it leads to; shared with others that do */
	pid_t pid;                        /* of bwrap; 0: not running */
	struct loop_source control;       /* fd -1: it gets no more sessions */
	int64_t started_ms, used_ms;      /* when it began; last had work */
	struct backoff again;             /* counts starts in a row that did not last */
	unsigned n_sessions;              /* by its last report */
	int64_t asked_ms;                 /* when it was asked for a report; 0: it has answered */
	bool reported;                    /* has its device open */
	bool opened;                      /* the same, and stays so when it is let go of */
	/* The machine whose graph an executor ended itself for last; how often in a row, and until
	 * when it gets no session. */
	char offender[CONTROL_NAME_BYTES];
	struct backoff offences;
	struct log_limit complaints;
};

struct executors {
	const struct jail *jail;
	struct loop *loop;
	struct cards cards;
	struct executor executor[WIRE_MAX_DEVICES]; /* a row per device */
	int n;
	struct list own; /* executor::link: of programs that have one of their own */
};

/* Takes over the @n devices (copied); executors start when they are wanted. */
void executors_init(struct executors *x, struct loop *loop, const struct jail *jail,
		    const struct wire_device *devices, int n);
void executors_finish(struct executors *x); /* they leave after their last session */

/* The devices that @api (WIRE_API_ANY: any but examples) reaches, as a machine with @quota_bytes
 * (0: none) sees them, into @out (WIRE_MAX_DEVICES). */
int executors_list(const struct executors *x, uint16_t api, uint64_t quota_bytes,
		   struct wire_device *out);

/* May a program that speaks @version of @api open device @index? */
enum wire_status executors_check(const struct executors *x, uint32_t index, uint16_t api,
				 uint16_t version);

/* The cards and what leads to them, into @out (WIRE_MAX_DEVICES). */
int executors_ways(const struct executors *x, struct host_way *out);

/* Hands the descriptors of HOST_OPEN (host.h; borrowed) to the executor of device @index, starting
 * it if it is not there. */
enum wire_status executors_open(struct executors *x, uint32_t index, struct control_open *open,
				const int *fds, int n_fds);

/* Call on SIGCHLD, with a process that was reaped.  False: it is none of these. */
bool executors_reaped(struct executors *x, pid_t pid, int status);

/* Call every few seconds: asks for reports, kills those that do not answer, lets go of those
 * without work since @idle_ms. */
void executors_tick(struct executors *x, int64_t idle_ms);

/* How many sessions there are, by the last reports. */
unsigned executors_sessions(const struct executors *x);

#endif
