/* SPDX-License-Identifier: Apache-2.0
 *
 * install.h -- a new distribution, whatever it is made of.
 *
 * Its folder is distros/NAME, or a folder elsewhere to which distros/NAME is a link then.  It is
 * registered last: an interrupted one is not listed, and the next one removes its folder. */
#ifndef PIL_INSTALL_H
#define PIL_INSTALL_H

#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/registry.h"
#include "config/state.h"

struct config;

struct install {
	const char *name, *flavor;
	const char *location; /* a folder for it, which is empty or not there; NULL: distros/NAME */
	unsigned version;
	/* Makes rootfs, or disk.ext4 and sets .version to 2, in the new folder @dir. */
	int (*make)(const struct install *i, const char *dir, struct distro *distro,
		    struct pil_err *err);
	const void *source; /* for .make */
	const struct state_dirs *dirs;
	const struct config *config;
};

/* Makes it while it holds registry_lock(), with the kits that its machine needs.  The first one
 * becomes the default. */
int install_distro(const struct install *i, struct pil_err *err) PIL_MUST_CHECK;

/* May a new one be called @name?  -EEXIST, -EINVAL. */
int install_check_name(const struct state_dirs *dirs, const char *name,
		       struct pil_err *err) PIL_MUST_CHECK;

/* Makes @location, or looks whether it may be used: empty, and ours.  Heap, its absolute path; NULL
 * with the reason in @err. */
char *install_prepare_folder(const char *location, struct pil_err *err) PIL_MUST_CHECK;

#endif
