/* SPDX-License-Identifier: Apache-2.0
 *
 * unixsock.h -- sockets with a path, of any length. */
#ifndef PIL_UNIXSOCK_H
#define PIL_UNIXSOCK_H

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

/* Listens at @path with a stream socket, in the place of whatever was there.  The socket, or
 * -errno. */
int unixsock_listen(const char *path, int backlog, struct pil_err *err) PIL_MUST_CHECK;

/* The same with a socket of @type (SOCK_SEQPACKET, SOCK_NONBLOCK, ...) that those may connect to
 * whom @mode lets write.  What was there is replaced in one step: nobody ever finds none, or one
 * with another mode. */
int unixsock_listen_as(const char *path, int type, mode_t mode, struct pil_err *err) PIL_MUST_CHECK;

/* Connects to @path, waiting at most ten seconds for a busy listener.  The socket takes no
 * descriptors where the kernel can be told so (queued.h).  The socket, or -errno. */
int unixsock_connect(const char *path) PIL_MUST_CHECK;
int unixsock_connect_as(const char *path, int type) PIL_MUST_CHECK;

#endif
