/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies from and to an array of iovecs at an offset, and cuts arrays.  Lengths are sums of what a
 * guest named, so each copy is bounded by what the array holds. */
#include "virtio/iovs.h"

#include <stdint.h>
#include <string.h>

enum direction { READ_IOVS, WRITE_IOVS };

static size_t copy(const struct iovec *iov, unsigned n_iov, size_t off, void *buf, size_t len,
		   enum direction direction)
{
	size_t done = 0;

	for (unsigned i = 0; i < n_iov && done < len; i++) {
		size_t n;
		void *at;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		n = iov[i].iov_len - off;
		n = n < len - done ? n : len - done;
		at = (uint8_t *)iov[i].iov_base + off;
		if (direction == READ_IOVS)
			memcpy((uint8_t *)buf + done, at, n);
		else
			memcpy(at, (const uint8_t *)buf + done, n);
		done += n;
		off = 0;
	}
	/* what was guest memory is not loaded again behind the caller's checks */
	__asm__ volatile("" ::: "memory");
	return done;
}

size_t iovs_read(const struct iovec *iov, unsigned n_iov, size_t off, void *to, size_t len)
{
	return copy(iov, n_iov, off, to, len, READ_IOVS);
}

size_t iovs_write(const struct iovec *iov, unsigned n_iov, size_t off, const void *from, size_t len)
{
	return copy(iov, n_iov, off, (void *)(uintptr_t)from, len, WRITE_IOVS);
}

unsigned iovs_cut(const struct iovec *iov, unsigned n_iov, size_t off, size_t len, struct iovec *to,
		  unsigned max_to)
{
	unsigned n_to = 0;

	for (unsigned i = 0; i < n_iov && len && n_to < max_to; i++) {
		size_t n = iov[i].iov_len;

		if (off >= n) {
			off -= n;
			continue;
		}
		n -= off;
		n = n < len ? n : len;
		to[n_to++] = (struct iovec){(uint8_t *)iov[i].iov_base + off, n};
		len -= n;
		off = 0;
	}
	return n_to;
}

size_t iovs_bytes(const struct iovec *iov, unsigned n_iov)
{
	size_t sum = 0;

	for (unsigned i = 0; i < n_iov; i++)
		sum += iov[i].iov_len;
	return sum;
}
