/* SPDX-License-Identifier: Apache-2.0
 *
 * catalog.h -- what can be installed from a list of distributions: the one that comes with pillion
 * or that of DistributionListUrl, and before it that of DistributionListUrlAppend. */
#ifndef PIL_CATALOG_H
#define PIL_CATALOG_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"
#include "tree/manifest.h"

struct config;

struct catalog {
	struct manifest append, main;
};

int catalog_load(struct catalog *out, const struct state_dirs *dirs, const struct config *config,
		 struct pil_err *err) PIL_MUST_CHECK;
void catalog_finish(struct catalog *c);

/* manifest_find() in both; what the appended list has comes first. */
const struct manifest_entry *catalog_find(const struct catalog *c, const char *name);

/* Fetches @entry's archive to the cache, where it stays.  Heap path; NULL with the reason in @err.
 */
char *catalog_fetch(const struct state_dirs *dirs, const struct manifest_entry *entry,
		    struct pil_err *err) PIL_MUST_CHECK;

#endif
