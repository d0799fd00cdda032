/* SPDX-License-Identifier: Apache-2.0
 *
 * bindfs.h -- folders of the host as a sandbox sees them where it may only read: through FUSE.
 *
 * What is opened is an inode of FUSE's, never the host's: a socket there has no listener, and a
 * FIFO leads to nobody outside. */
#ifndef PIL_BINDFS_H
#define PIL_BINDFS_H

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "machine/spec.h"

struct userns_stage;

struct bindfs {
	char *folder; /* where they are mounted; the host sees an empty one */
	int n;
	const struct machine_share *share[SPEC_MAX_SHARES];
	char *place[SPEC_MAX_SHARES];      /* in the folder */
	const char *seen[SPEC_MAX_SHARES]; /* the same, in the namespace of the sandbox */
	pid_t pid[SPEC_MAX_SHARES];        /* of its server; 0: none */
	int near_fd, far_fd; /* the sandbox's child sends descriptors by the far one */
};

/* Can this host do it?  0, or -errno with what to do about it. */
int bindfs_usable(const struct machine_share *share, struct pil_err *err) PIL_MUST_CHECK;

/* Will mount in @dir, the machine's runtime folder.  0 or -errno. */
int bindfs_init(struct bindfs *b, const char *dir, struct pil_err *err) PIL_MUST_CHECK;

/* Has @share mounted by bindfs_mount().  Returns where it will be seen, NULL with errno. */
const char *bindfs_add(struct bindfs *b, struct userns_stage *stage,
		       const struct machine_share *share);

/* To be called in the child that becomes the sandbox, as root of its namespace: struct
 * userns_stage's prepare().  0 or -errno. */
int bindfs_mount(void *b);

/* Starts what serves the mounts; until then, who looks at them waits.  They print to @say_fd. */
int bindfs_serve(struct bindfs *b, int say_fd, struct pil_err *err) PIL_MUST_CHECK;

/* Says it when one has ended.  Its folder cannot be served again: the kernel has let go of it. */
void bindfs_tend(struct bindfs *b);

void bindfs_stop(struct bindfs *b);

#endif
