/* SPDX-License-Identifier: Apache-2.0
 *
 * unixsock.h -- stream sockets with a path. */
#ifndef PIL_UNIXSOCK_H
#define PIL_UNIXSOCK_H

#include "compiler.h"
#include "err.h"

/* Listens at @path, in the place of whatever was there.  The socket, or -errno. */
int unixsock_listen(const char *path, int backlog, struct pil_err *err) PIL_MUST_CHECK;

/* Connects to @path, waiting at most ten seconds for a busy listener.  The socket, or -errno. */
int unixsock_connect(const char *path) PIL_MUST_CHECK;

#endif
