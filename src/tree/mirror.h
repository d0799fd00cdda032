/* SPDX-License-Identifier: Apache-2.0
 *
 * mirror.h -- which Debian mirror to take trees from: the one this host's own apt uses. */
#ifndef PIL_MIRROR_H
#define PIL_MIRROR_H

#include "base/compiler.h"
#include "base/err.h"

/* Heap; NULL with what to do in @err. */
char *mirror_find(struct pil_err *err) PIL_MUST_CHECK;

/* Picks it out of what `apt-get indextargets` prints, "RELEASE|CODENAME|COMPONENT|ORIGIN|URI" per
 * line: the entry of main for the host's own @codename that says it is Debian's.  CODENAME and
 * ORIGIN are empty until apt has fetched an index; then the first entry of main is taken.  Heap,
 * NULL: none. */
char *mirror_choose(const char *targets, const char *codename);

#endif
