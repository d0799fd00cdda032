/* SPDX-License-Identifier: Apache-2.0
 *
 * iovs.h -- arrays of iovecs as one run of bytes: copied from and to, and cut. */
#ifndef PIL_IOVS_H
#define PIL_IOVS_H

#include <stddef.h>
#include <sys/uio.h>

/* Copy up to @len bytes at offset @off of @iov; return how many there were. */
size_t iovs_read(const struct iovec *iov, unsigned n_iov, size_t off, void *to, size_t len);
size_t iovs_write(const struct iovec *iov, unsigned n_iov, size_t off, const void *from,
		  size_t len);

/* Stores in @to (room for @max_to) the parts of @iov that make up bytes [@off, @off + @len), fewer
 * where either ends before; returns how many parts.  @to may be @iov. */
unsigned iovs_cut(const struct iovec *iov, unsigned n_iov, size_t off, size_t len, struct iovec *to,
		  unsigned max_to);

size_t iovs_bytes(const struct iovec *iov, unsigned n_iov);

#endif
