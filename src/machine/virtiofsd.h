/* SPDX-License-Identifier: Apache-2.0
 *
 * virtiofsd.h -- a folder of the host for a microVM, served by virtiofsd. */
#ifndef PIL_VIRTIOFSD_H
#define PIL_VIRTIOFSD_H

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "machine/spec.h"
#include "machine/respawn.h"
#include "machine/said.h"

struct fs_share { /* one of a running machine */
	char tag[16];
	char *socket;  /* pillion-vmm connects to it, again when its server was away; NULL: none */
	int listen_fd; /* stays ours, so that a new server can take over */
	pid_t pid;     /* 0: its server has ended */
	struct respawn again;
	struct said said;
};

/* Makes the socket and starts a server for @share, as share number @index in folder @dir.  When
 * that fails there is no share. */
int virtiofsd_start(struct fs_share *fs, const struct machine_share *share, int index,
		    const char *dir, struct pil_err *err) PIL_MUST_CHECK;
/* Puts what the server has said into our log, and starts a new one if it has ended.  A server that
 * says much waits until then. */
void virtiofsd_tend(struct fs_share *fs, const struct machine_share *share);
void virtiofsd_stop(struct fs_share *fs); /* not started is fine */

#endif
