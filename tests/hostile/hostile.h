/* SPDX-License-Identifier: Apache-2.0
 *
 * hostile.h -- what root of a machine tries against the host: a table of cases, split by family.
 *
 * A case tries one thing and says what came of it.  It must be able to succeed: `--self-test`
 * runs it as root of the host in a scratch world, where nearly all cases are allowed. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <stdbool.h>

#include "base/compiler.h"

enum {
	ON_NS = 1,
	ON_KVM = 2,
	ON_BOTH = 3,
	SKIPPED = -4096, /* hostile_note() says why */
};

struct hostile_case {
	const char *name;
	int where; /* ON_x: what kind of machine it applies to */
	/* 0 or more: it was allowed; -errno: it was refused; SKIPPED */
	int (*try)(const struct hostile_case *c);
	/* The errno values that count as refused, and negative numbers of signals.  None: the try
	 * may succeed, but must not matter to the host, which the driver looks at. */
	int expected[10];
	const char *arg; /* of a family that differs by a path or a number */
};

struct hostile_family {
	const struct hostile_case *cases;
	int n;
};

extern const struct hostile_family hostile_bombs, hostile_calls, hostile_descriptors, hostile_files,
	hostile_machine, hostile_mounts, hostile_names, hostile_sockets, hostile_virtio;

/* The last words of a case: what was allowed, or why it was skipped. */
void hostile_note(const char *format, ...) PIL_PRINTF(1, 2);
int hostile_skip(const char *why);

/* KEY=VALUE of the command line: what the driver tells of the host.  NULL: not told. */
const char *hostile_told(const char *key);

bool hostile_expects(const struct hostile_case *c, int error);

/* Says "holding" on standard output, and waits until standard input ends or a minute is over. */
void hostile_hold(void);

/* One try of a case that makes many.  The case was allowed when one of them was. */
struct tally {
	const struct hostile_case *of;
	int result; /* starts as SKIPPED: nothing to try */
};
void tally_add(struct tally *t, int result, const char *what);
int tally_result(const struct tally *t, int if_none);

/* 0 or more, or -errno. */
int hostile_errno(long result);

struct mount_line {
	int id;
	char path[256], type[32], flags[128];
	bool ro, nodev;
};
enum { MAX_MOUNTS = 256 };
int hostile_mounts_read(struct mount_line *lines, int max);

/* A mount namespace of this case's own, so that what it does there ends with it. */
void hostile_own_mounts(void);
/* Makes the mount that holds @path writable in every way there is. */
void hostile_make_writable(const char *path);
/* Opens for writing, as O_WRONLY, and closes: 0 or -errno. */
int hostile_open_write(const char *path);
/* Runs @visit on all that is below @path; at most @depth levels. */
void hostile_walk(const char *path, int depth, void (*visit)(const char *path, int type, void *arg),
		  void *arg);

int hostile_bomb_use(const char *name);
int hostile_self_test(int (*run_all)(void));

#endif
