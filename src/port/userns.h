/* SPDX-License-Identifier: Apache-2.0
 *
 * userns.h -- running something in the user namespace that owns the distro trees.
 *
 * Inside it, uids 0..65535 exist.  Outside, for root, they are a high range that belongs to nobody
 * else; for others, 0 is the user and the rest is the user's range in /etc/subuid (newuidmap).
 * Files of a distro tree are owned by those ids, so they are made, changed and removed in here. */
#ifndef PIL_USERNS_H
#define PIL_USERNS_H

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/proc.h"

enum { USERNS_MAX_STAGES = 16 };

/* Host paths the program needs.  As root the namespace could not walk to them (a home directory is
 * 0700), so they are bound to a place of their own, in a mount namespace that ends with the
 * program; for others that is not needed. */
struct userns_stage {
	const char *source[USERNS_MAX_STAGES]; /* borrowed; folders or files */
	char place[USERNS_MAX_STAGES][16];     /* where root's are bound */
	int n;
	/* Called, where it is set, with .arg as root of the namespace before the program is
	 * executed.  0 or -errno. */
	int (*prepare)(void *arg);
	void *arg;
};

/* Adds a path and returns where it will be seen: borrowed from @stage, or @source itself. */
const char *userns_stage_add(struct userns_stage *stage, const char *source);

enum userns_pids {
	USERNS_HOST_PIDS,
	USERNS_OWN_PIDS, /* it is the first process of a pid namespace: nothing it started outlives
			    it, and signals it has no handler for do nothing, but for SIGKILL */
};

/* Starts @argv as uid 0 of the namespace (gid 0, all capabilities in it), otherwise as proc_spawn()
 * does.  @stage may be NULL.  -errno with a hint where the host lacks newuidmap or a subuid range.
 */
pid_t userns_spawn(char *const *argv, const struct userns_stage *stage, enum userns_pids pids,
		   const struct proc_opts *opts, struct pil_err *err) PIL_MUST_CHECK;

/* The same in the user namespace process @target lives in; no stages.  The program may use
 * /dev/net/tun there, whoever the host lets use it: it can make interfaces in that namespace only.
 * @prepare (may be NULL), which returns 0 or -errno, is called with @arg in there before. */
pid_t userns_join_spawn(pid_t target, char *const *argv, const struct proc_opts *opts,
			int (*prepare)(void *arg), void *arg, struct pil_err *err) PIL_MUST_CHECK;

/* Calls @function with @arg in a child in there, and returns what it does: 0 or -errno. */
int userns_join_call(pid_t target, int (*function)(void *arg), void *arg,
		     struct pil_err *err) PIL_MUST_CHECK;

/* Makes folder @path, owned by uid 0 of the namespace.  0 or -errno. */
int userns_mkdir(const char *path) PIL_MUST_CHECK;

/* Gives file @path, which is the caller's, to uid 0 of the namespace.  0 or -errno. */
int userns_own(const char *path) PIL_MUST_CHECK;

/* rm -rf of a tree whose files belong to the namespace; missing is fine.  Waits, bounded. */
int userns_remove_tree(const char *path, struct pil_err *err) PIL_MUST_CHECK;

#endif
