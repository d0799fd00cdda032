/* SPDX-License-Identifier: Apache-2.0
 *
 * form.h -- a distribution is a tree (version 1, for a sandbox) or a disk (version 2, for a
 * microVM), and can be turned from one into the other. */
#ifndef PIL_FORM_H
#define PIL_FORM_H

#include "base/compiler.h"
#include "base/err.h"
#include "config/registry.h"
#include "config/state.h"
#include "kit/kit.h"

struct config;

/* Gives @distro the form of @version, with what a machine of that version needs (the kernel kit),
 * and records it in the registry; the old form goes when the new one is recorded, so that being
 * killed at any moment loses nothing.  Talks about its progress on standard error.  The machine
 * does not run; registry_lock() is held. */
int form_change(const struct state_dirs *dirs, struct distro *distro, unsigned version,
		const struct config *config, struct pil_err *err) PIL_MUST_CHECK;

/* Removes from a distribution's folder the form that is not the recorded one. */
void form_remove_other(const char *dir, unsigned version);

struct form_kits {
	const char *suite;   /* of the kernel, the config's; NULL: the default */
	int runtime, kernel; /* enum kit_done; -1: not needed */
};

/* Sees to the kits for machines of @version, as the config wants them.  @done: what it did; may be
 * NULL. */
int form_kits(const struct state_dirs *dirs, unsigned version, const struct config *config,
	      enum kit_wish wish, struct form_kits *done, struct pil_err *err) PIL_MUST_CHECK;

#endif
