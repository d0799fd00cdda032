/* SPDX-License-Identifier: Apache-2.0
 *
 * busy.h -- what else a host did while something was measured on it.
 *
 * A measurement takes a busy_mark before and one after each part, and compares the two. */
#ifndef PIL_BUSY_H
#define PIL_BUSY_H

#include <stdbool.h>

#include "base/compiler.h"

/* Reads memory in one thread.  Neighbours on the same host can take the memory's bandwidth, and no
 * counter of the kernel tells. */
struct busy_probe;

/* NULL: no memory for it; everything below takes that for "bandwidth unknown". */
struct busy_probe *busy_probe_create(void);
void busy_probe_destroy(struct busy_probe *probe); /* NULL is fine */

struct busy_mark {
	double wall_s;      /* of the monotonic clock */
	double used_s;      /* CPU time that all processes and the kernel have used since boot */
	double steal_s;     /* CPU time that the hypervisor gave to others */
	double ours_s;      /* part of @used_s: what is measured; see busy_mark_take() */
	double bytes_per_s; /* that @probe read; 0: unknown */
};

/* Counts as ours: this process, its ended children, and the trees of processes whose roots the
 * files @pid_files name (NULL-terminated list; a file that is not there counts nothing). */
void busy_mark_take(struct busy_mark *mark, struct busy_probe *probe, const char *const *pid_files);

/* CPU time between the marks that went elsewhere, in seconds. */
double busy_elsewhere_s(const struct busy_mark *from, const struct busy_mark *to);

/* CPU time that there was between the marks, on all processors. */
double busy_available_s(const struct busy_mark *from, const struct busy_mark *to);

/* Did so much go elsewhere that a measurement between the marks is worth nothing?  Ticks of the
 * kernel's clock are forgiven. */
bool busy_disturbed(const struct busy_mark *from, const struct busy_mark *to);

/* For the unit test: the first line of /proc/stat in seconds.  False: not such a line. */
bool busy_parse_stat(const char *text, double ticks_per_s, double *used_s, double *steal_s);

#endif
