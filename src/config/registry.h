/* SPDX-License-Identifier: Apache-2.0
 *
 * registry.h -- the installed distributions: data/distros/NAME/distro.json, written last and at
 * once, so that a distribution is there when, and only when, its file is. */
#ifndef PIL_REGISTRY_H
#define PIL_REGISTRY_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"
#include "config/state.h"

struct distro {
	char name[STR_MAX_NAME + 1];
	char flavor[STR_MAX_NAME + 1]; /* what it was made from: "debian" */
	unsigned version;              /* 1 sandbox, 2 microVM */
	unsigned default_uid;          /* user of commands without -u */
};

/* Held while distributions or kits are made or removed: a descriptor, waited for ten minutes. */
int registry_lock(const struct state_dirs *dirs, struct pil_err *err) PIL_MUST_CHECK;
char *registry_lock_path(const struct state_dirs *dirs); /* heap; see work.h */

/* Upper and lower case are the same, as in wsl; @out has the name as it was first given.  -ENOENT
 * with the exact text of wsl in the message. */
int registry_find(const struct state_dirs *dirs, const char *name, struct distro *out,
		  struct pil_err *err) PIL_MUST_CHECK;

/* All of them by name; the caller frees *@out.  Returns the count or -errno.  A folder whose file
 * is missing or malformed is left out (with a warning for the latter). */
int registry_list(const struct state_dirs *dirs, struct distro **out,
		  struct pil_err *err) PIL_MUST_CHECK;

int registry_add(const struct state_dirs *dirs, const struct distro *distro,
		 struct pil_err *err) PIL_MUST_CHECK;

/* Forgets it: from here on it is a folder to be cleaned up. */
int registry_remove(const struct state_dirs *dirs, const char *name,
		    struct pil_err *err) PIL_MUST_CHECK;

/* The default one: as set, or the only one, or the first.  -ENOENT with what to do when there is
 * none. */
int registry_default(const struct state_dirs *dirs, struct distro *out,
		     struct pil_err *err) PIL_MUST_CHECK;
int registry_set_default(const struct state_dirs *dirs, const char *name,
			 struct pil_err *err) PIL_MUST_CHECK;

/* Parses the text of a distro.json; for tests and fuzzing. */
bool registry_parse(const char *text, size_t len, struct distro *out);

#endif
