/* SPDX-License-Identifier: Apache-2.0
 *
 * runtime_kit.h -- the kit in whose tree executors are jailed, with ggml and its back ends. */
#ifndef PIL_RUNTIME_KIT_H
#define PIL_RUNTIME_KIT_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"
#include "kit/kit.h"

enum { RUNTIME_KIT_VERSION_BYTES = 32 };

/* kit_ensure() by the first of recipes_runtime[] that gives a ggml which this pillion knows.  Where
 * none does, a kit that is there stays (KIT_HELD).  registry_lock() is held. */
int runtime_kit_ensure(const struct state_dirs *dirs, enum kit_wish wish,
		       struct pil_err *err) PIL_MUST_CHECK;

char *runtime_kit_packaged(const struct state_dirs *dirs); /* kit_packaged() of it; heap */

/* Tells people on standard error when there will be no device because the ggml of the kit (unless
 * executors use that in @ggml_dir) or that in the tree of @distro is unknown.  Either may be NULL.
 */
void runtime_kit_warn(const struct state_dirs *dirs, const char *ggml_dir, const char *distro);

/* The version of ggml in the tree @rootfs, such as "0.27.0"; @out holds RUNTIME_KIT_VERSION_BYTES.
 * False if it has none. */
bool runtime_kit_ggml_version(const char *rootfs, char *out);

bool runtime_kit_ggml_known(const char *version);

#endif
