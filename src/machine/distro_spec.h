/* SPDX-License-Identifier: Apache-2.0
 *
 * distro_spec.h -- the spec of an installed distribution's machine, from the registry, the user's
 * config and the machine's own. */
#ifndef PIL_DISTRO_SPEC_H
#define PIL_DISTRO_SPEC_H

#include "base/compiler.h"
#include "base/err.h"

struct machine_spec;
struct state_dirs;

/* Fills @spec, which the caller gives to spec_finish().  Refuses a share that is not there or not
 * to be shared (shares.h).  0, or -errno and nothing to finish. */
int distro_spec_make(struct machine_spec *spec, const struct state_dirs *dirs, const char *name,
		     struct pil_err *err) PIL_MUST_CHECK;

#endif
