/* SPDX-License-Identifier: Apache-2.0
 *
 * manifest.h -- the list of distributions that can be installed, in the format of WSL's
 * DistributionInfo.json.
 *
 * Top keys: ModernDistributions, Default, Distributions (older packages, of which none can be used
 * here).  ModernDistributions has flavors, each a list of {Name, FriendlyName, Default, Amd64Url,
 * Arm64Url}; a Url is {Url, Sha256}.  Read as strictly as WSL's own validator does: another key, a
 * Name that does not begin with its flavor, none or two Defaults in a flavor are errors. */
#ifndef PIL_MANIFEST_H
#define PIL_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/str.h"

enum { MANIFEST_MAX_BYTES = 4 << 20, MANIFEST_MAX = 512, MANIFEST_HEX = 64 };

struct manifest_entry {
	char flavor[STR_MAX_NAME + 1], name[STR_MAX_NAME + 1];
	char *friendly; /* without control characters */
	char *url;      /* http, https or file */
	char sha256[MANIFEST_HEX + 1];
	bool is_default; /* of its flavor */
};

struct manifest { /* of one architecture */
	struct manifest_entry *v;
	size_t n;
	char default_flavor[STR_MAX_NAME + 1]; /* ""; none */
};

/* Reads one for @arch, "amd64" or "arm64".  -EBADMSG with the place that is wrong.  The caller
 * calls manifest_finish() after success. */
int manifest_parse(struct manifest *out, const char *text, size_t len, const char *arch,
		   struct pil_err *err) PIL_MUST_CHECK;
void manifest_finish(struct manifest *m);

/* The default of flavor @name, or the one called @name; upper and lower case are the same. NULL:
 * none. */
const struct manifest_entry *manifest_find(const struct manifest *m, const char *name);

/* Is it an address of http, https or file? */
bool manifest_is_url(const char *text);

/* The list that comes with pillion. */
extern const char manifest_builtin[];
extern const size_t manifest_builtin_bytes;

/* "amd64" or "arm64". */
const char *manifest_arch(void);

#endif
