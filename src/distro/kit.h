/* SPDX-License-Identifier: Apache-2.0
 *
 * kit.h -- the runtime kit: the tree in which executors are jailed, with ggml and its back ends. */
#ifndef PIL_KIT_H
#define PIL_KIT_H

#include <stdbool.h>

#include "compiler.h"
#include "err.h"
#include "state.h"

enum { KIT_VERSION_BYTES = 32 };

/* Makes or renews the kit if it is not what one of its recipes says, with a ggml that this pillion
 * knows if any of them has one.  Returns 1 when it was made.  registry_lock() is held. */
int kit_ensure(const struct state_dirs *dirs, struct pil_err *err) PIL_MUST_CHECK;

/* Tells people on standard error when there will be no device because the ggml of the kit (unless
 * executors use that in @ggml_dir) or that in the tree of @distro is unknown.  Either may be NULL.
 */
void kit_warn_of_ggml(const struct state_dirs *dirs, const char *ggml_dir, const char *distro);

/* The version of ggml in the tree @rootfs, such as "0.27.0"; @out holds KIT_VERSION_BYTES.  False
 * if it has none. */
bool kit_ggml_version(const char *rootfs, char *out);

bool kit_ggml_known(const char *version);

#endif
