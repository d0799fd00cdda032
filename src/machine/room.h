/* SPDX-License-Identifier: Apache-2.0
 *
 * room.h -- what a sandbox sees of files: a tree, and what is mounted in it. */
#ifndef PIL_ROOM_H
#define PIL_ROOM_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"

enum { ROOM_MAX_STEPS = 96 };

enum room_kind {
	ROOM_BIND,   /* .source at .place */
	ROOM_DEVPTS, /* terminals of its own */
	ROOM_DIR,
	ROOM_LINK, /* to .source */
	ROOM_NODE, /* a device of the host's, if it is there and everybody may use it */
	ROOM_PROC,
	ROOM_SEAL, /* a tmpfs made before becomes read-only */
	ROOM_SHOW, /* as ROOM_BIND, read-only, with all that is mounted below */
	ROOM_TEXT, /* a file that holds .source */
	ROOM_TMPFS,
};

struct room_step {
	enum room_kind kind;
	char *source, *place; /* owned; a source is a path of the host's, a place one in the tree */
	mode_t mode;          /* of what is made; of a source: S_IFDIR or S_IFREG */
};

struct room {
	struct room_step steps[ROOM_MAX_STEPS];
	int n;
};

/* Adds a step; @source may be NULL. */
void room_add(struct room *r, enum room_kind kind, const char *source, const char *place,
	      mode_t mode);
void room_finish(struct room *r);

/* Called as root of a user namespace.  Goes on as the first process of a pid namespace, whose root
 * is folder @tree with the steps taken in it; the caller itself becomes a process that waits for
 * that one's end, and is never seen again.  0 or -errno; -ELOOP: a symbolic link of the tree's is
 * where something is to be mounted. */
int room_enter(const struct room *r, const char *tree) PIL_MUST_CHECK;

#endif
