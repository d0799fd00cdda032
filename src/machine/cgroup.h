/* SPDX-License-Identifier: Apache-2.0
 *
 * cgroup.h -- a control group (v2) for what runs in a sandbox, where the host lets us make one. */
#ifndef PIL_CGROUP_H
#define PIL_CGROUP_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

struct cgroup {
	char *folder; /* NULL: none */
	int procs_fd; /* who writes "0" there is in it; -1: none */
};

/* The folder below which we may make groups with the controllers `pids` and `memory`, from files
 * like /proc/self/cgroup and /proc/self/mountinfo.  NULL with the reason and what to do in @err. */
char *cgroup_base(const char *self, const char *mountinfo, struct pil_err *err);

/* Makes a group for machine @name in @base, with its limits (0: none).  0 or -errno. */
int cgroup_create(struct cgroup *g, const char *base, const char *name, uint64_t max_processes,
		  uint64_t max_bytes, struct pil_err *err) PIL_MUST_CHECK;

/* Moves the caller into it.  0 or -errno. */
int cgroup_enter(const struct cgroup *g) PIL_MUST_CHECK;

/* The most processes a machine may have: a quarter of what the user may (userns.c, confine.c). */
uint64_t cgroup_max_processes(void);

void cgroup_remove(struct cgroup *g); /* once all in it have ended */

#endif
