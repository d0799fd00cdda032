/* SPDX-License-Identifier: Apache-2.0
 *
 * fd.h -- owning file descriptors and heap pointers, and whole reads and writes.
 *
 * `_auto_fd int fd = -1;` closes at scope end; `_auto_free T *p = NULL;` frees.  Ownership is
 * passed on with pil_take_fd() / pil_take_ptr(), which leave the variable empty. */
#ifndef PIL_FD_H
#define PIL_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/compiler.h"

void pil_close_p(int *fd); /* closes *fd if >= 0, keeps errno, stores -1 */

/* All descriptors from @first on: closes them, or lets them go with the next exec. */
void pil_close_from(int first);
void pil_cloexec_from(int first);

static inline void pil_free_p(void *p)
{
	free(*(void **)p);
	*(void **)p = NULL;
}

#define _auto_fd   __attribute__((cleanup(pil_close_p)))
#define _auto_free __attribute__((cleanup(pil_free_p)))

static inline int pil_take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

static inline void *pil_take_ptr_(void *pp)
{
	void *p = *(void **)pp;

	*(void **)pp = NULL;
	return p;
}
#define pil_take_ptr(pp) ((__typeof__(*(pp)))pil_take_ptr_(pp))

/* Both return 0 only when all @len bytes went through; -errno, or -EPIPE at end of file. */
int pil_read_all(int fd, void *buf, size_t len) PIL_MUST_CHECK;
int pil_write_all(int fd, const void *buf, size_t len) PIL_MUST_CHECK;

/* Writes all of @iov with MSG_NOSIGNAL (a socket); modifies @iov.  0 or -errno. */
int pil_sendv_all(int fd, struct iovec *iov, int n_iov) PIL_MUST_CHECK;

/* Reads the whole file into a NUL-terminated heap string, at most @max bytes (else -EFBIG).
 * Returns the length or -errno; the caller frees *@out. */
ssize_t pil_read_file(const char *path, size_t max, char **out) PIL_MUST_CHECK;

/* Writes @path atomically: a temporary beside it, fsync, rename.  0 or -errno. */
int pil_write_file(const char *path, mode_t mode, const void *buf, size_t len) PIL_MUST_CHECK;

int pil_set_nonblock(int fd, bool on);

/* Sends @n_fds descriptors along with @len (>= 1) bytes; receives at most @n_fds, all O_CLOEXEC.
 * Receiving returns the byte count (0 at end of file) or -errno and stores how many came in
 * *@n_fds; descriptors beyond the capacity are closed and -EPROTO is returned. */
int pil_send_fds(int sock, const void *buf, size_t len, const int *fds, int n_fds) PIL_MUST_CHECK;
ssize_t pil_recv_fds(int sock, void *buf, size_t len, int *fds, int *n_fds,
		     int flags) PIL_MUST_CHECK; /* MSG_DONTWAIT or 0 */

#define PIL_MAX_PASSED_FDS 16

/* As many descriptors as the hard limit allows, for a process that holds some per peer. */
void pil_raise_fd_limit(void);

#endif
