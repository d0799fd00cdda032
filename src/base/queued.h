/* SPDX-License-Identifier: Apache-2.0
 *
 * queued.h -- descriptors that a peer has queued on a Unix socket of ours.
 *
 * They come along with bytes whether or not the reader asks for descriptors.  Who takes those bytes
 * or closes the socket drops them, and to drop the last reference of a file can take as long as its
 * owner likes: a TCP socket with SO_LINGER and unsent data waits for its peer. */
#ifndef PIL_QUEUED_H
#define PIL_QUEUED_H

/* From now on a peer cannot queue descriptors on @sock, nor on what it accepts; or again can.  0 or
 * -errno: ENOPROTOOPT before Linux 6.16. */
int queued_fds_refuse(int sock);
int queued_fds_allow(int sock);

/* Between these two a drop takes at most QUEUED_DROP_MS: a signal (SIGALRM) interrupts it.  For
 * single-threaded programs that have no other use of that signal.  A wait of another kind fails
 * with EINTR. */
enum { QUEUED_DROP_MS = 100 };
void queued_drop_begin(void);
void queued_drop_end(void);

#endif
