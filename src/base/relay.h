/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.h -- joining two streams: what comes from one goes to the other. */
#ifndef PIL_RELAY_H
#define PIL_RELAY_H

/* Copies both ways until both have ended, or one fails.  An end is passed on as such (half close).
 * Blocks; both descriptors are sockets and stay the caller's. */
void relay_run(int a, int b);

#endif
