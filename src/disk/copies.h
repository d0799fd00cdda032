/* SPDX-License-Identifier: Apache-2.0
 *
 * copies.h -- copies of a distribution's files: for a new one, for a snapshot and back, and to
 * another place.  Blocks are shared where the file system can.
 *
 * Called with registry_lock() held.  Whoever is killed leaves the old state or the new one, and
 * beside it a folder that the next call removes. */
#ifndef PIL_COPIES_H
#define PIL_COPIES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/registry.h"
#include "config/state.h"

struct snapshot {
	char tag[STR_MAX_NAME + 1];
	unsigned version, default_uid;
	int64_t made; /* seconds since 1970 */
};

/* Copies the tree or disk of @version in folder @from to folder @to, which has none.  @running: a
 * machine uses it, and stands still (machine/freeze.h). */
int copies_copy_form(const char *from, const char *to, unsigned version, bool running,
		     struct pil_err *err) PIL_MUST_CHECK;

/* Settings and notes, as far as they are there. */
int copies_copy_notes(const char *from, const char *to, struct pil_err *err) PIL_MUST_CHECK;

/* Makes snapshot @tag of @distro.  @running: as above. */
int copies_snapshot(const struct state_dirs *dirs, const struct distro *distro, const char *tag,
		    bool running, struct pil_err *err) PIL_MUST_CHECK;
int copies_snapshot_remove(const struct state_dirs *dirs, const struct distro *distro,
			   const char *tag, struct pil_err *err) PIL_MUST_CHECK;

/* Gives @distro, which does not run, the files of snapshot @tag, which stays. */
int copies_restore(const struct state_dirs *dirs, struct distro *distro, const char *tag,
		   struct pil_err *err) PIL_MUST_CHECK;

/* All snapshots of @distro by name; the caller frees *@out.  Returns the count or -errno. */
int copies_list(const struct state_dirs *dirs, const struct distro *distro, struct snapshot **out,
		struct pil_err *err) PIL_MUST_CHECK;

/* Moves @distro, which does not run, with its snapshots to @folder, which is empty or not there. */
int copies_move(const struct state_dirs *dirs, const struct distro *distro, const char *folder,
		struct pil_err *err) PIL_MUST_CHECK;

/* Parses a snapshot.json but for its tag; for tests and fuzzing too. */
bool copies_parse(const char *text, size_t len, struct snapshot *out);

#endif
