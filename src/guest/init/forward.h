/* SPDX-License-Identifier: Apache-2.0
 *
 * forward.h -- the guest's half of localhostForwarding: programs that listen in a machine are
 * reached through the host's localhost. */
#ifndef PIL_GUEST_FORWARD_H
#define PIL_GUEST_FORWARD_H

#include <stdint.h>

#include "base/loop.h"

/* Takes the host's connections at @listen_fd, and announces on @announce_fd which ports are
 * listened on, now and whenever that changes (agent.h).  Both become the forwarder's.  0 or -errno.
 */
int forward_begin(struct loop *loop, int listen_fd, int announce_fd);

#endif
