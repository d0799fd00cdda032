/* SPDX-License-Identifier: Apache-2.0
 *
 * lingering.h -- a TCP socket whose close() waits for ever, put into a Unix socket's queue. */
#ifndef LINGERING_H
#define LINGERING_H

#include <sys/un.h>

/* Sends it over @fd, and lets go of it, so that the last to hold it is whoever receives from @fd
 * or closes it.  0 or -errno. */
int hostile_send_lingering(int fd);

#endif
