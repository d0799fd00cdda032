/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-fusermount: stands for fusermount in the jail of a bindfs.
 *
 * Theory of operation: bindfs asks fusermount to mount, and gets the FUSE descriptor of the mount
 * by the socket that _FUSE_COMMFD names.  Here the mount exists already, in the namespace of a
 * sandbox, which bindfs does not see (bindfs.c).  We hand over its descriptor, PILLION_FUSE_FD. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/str.h"

static int fd_of(const char *variable)
{
	const char *text = getenv(variable);
	uint64_t fd;

	return text && str_to_u64(text, INT16_MAX, &fd) ? (int)fd : -1;
}

int main(void)
{
	int sock = fd_of("_FUSE_COMMFD"), fd = fd_of("PILLION_FUSE_FD");

	if (sock < 0 || fd < 0 || pil_send_fds(sock, "", 1, &fd, 1)) {
		fprintf(stderr, "pillion-fusermount: it serves bindfs in a sandbox alone\n");
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
