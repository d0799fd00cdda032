/* SPDX-License-Identifier: Apache-2.0
 *
 * export.h -- a distribution leaves as an archive or as a disk.  Called with registry_lock() held.
 */
#ifndef PIL_EXPORT_H
#define PIL_EXPORT_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/err.h"
#include "config/registry.h"
#include "config/state.h"

struct config;

/* What is read while the machine stands still: @running says whether it runs.  A disk that is in
 * use is copied; a tree is not. */
struct export
{
	const struct distro *distro;
	char *dir;   /* distros/NAME */
	char *work;  /* a folder for what is made on the way; removed by export_finish() */
	int disk_fd; /* the disk's lock, where nobody else uses it */
	bool running;
};
int export_begin(struct export *e, const struct state_dirs *dirs, const struct distro *distro,
		 bool running, struct pil_err *err) PIL_MUST_CHECK;
void export_finish(struct export *e); /* after a failure of export_begin(), too */

/* Packs it to @fd, compressed by @filter (archive.h). */
int export_archive(struct export *e, int fd, const char *filter,
		   struct pil_err *err) PIL_MUST_CHECK;

/* Makes the file @path: a raw image of its disk. */
int export_disk(struct export *e, const struct config *config, const char *path,
		struct pil_err *err) PIL_MUST_CHECK;

#endif
