/* SPDX-License-Identifier: Apache-2.0
 *
 * The text of a lock is STATE NAME VERSION.  A holder that was killed leaves it there; it counts
 * only while the lock is held. */
#include "config/work.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "config/state.h"

bool work_locked(const char *path)
{
	_auto_fd int fd = path_exists(path) ? state_lock(path, 0, NULL) : -ENOENT;

	return fd == -EWOULDBLOCK;
}

bool work_find(const char *path, struct work *out)
{
	_auto_free char *text = NULL;

	return work_locked(path) && pil_read_file(path, 256, &text) > 0 &&
	       sscanf(text, "%15s %64s %u", out->state, out->name, &out->version) == 3 &&
	       str_is_name(out->name);
}

void work_announce(int lock_fd, const char *state, const char *name, unsigned version)
{
	if (ftruncate(lock_fd, 0) || dprintf(lock_fd, "%s %s %u\n", state, name, version) < 0)
		log_dbg("lock: %s", strerror(errno)); /* only --list would have told of it */
}
