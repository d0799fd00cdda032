/* SPDX-License-Identifier: Apache-2.0
 *
 * native_kit.h -- the tree of a flavor, for its programs to run from on the host itself.  A
 * distribution that is a disk has none. */
#ifndef PIL_NATIVE_KIT_H
#define PIL_NATIVE_KIT_H

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"

/* Sees to it that there is one.  It is made of the packages that disks are made of at that time, so
 * a disk may have others: older, or newer by its own upgrade.  Stores its path in *@rootfs: heap.
 * registry_lock() is held. */
int native_kit_ensure(const struct state_dirs *dirs, const char *flavor, char **rootfs,
		      struct pil_err *err) PIL_MUST_CHECK;

#endif
