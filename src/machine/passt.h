/* SPDX-License-Identifier: Apache-2.0
 *
 * passt.h -- the network of a microVM: passt at the other end of its network card. */
#ifndef PIL_PASST_H
#define PIL_PASST_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

/* What the machine's network looks like from inside.  The host's own addresses are not used, so
 * that it looks the same everywhere. */
#define PASST_ADDRESS "10.0.2.15"
#define PASST_PREFIX  24
#define PASST_GATEWAY "10.0.2.2"
#define PASST_MTU     65520
#define PASST_DNS     "10.0.2.3" /* forwards to the host's resolver, where that is on loopback */

/* Starts it; *@card_fd is the stream the network card speaks to (the caller's).  @map_loopback: the
 * gateway's address is the host's loopback, instead of nobody.  It prints to @say_fd.  The pid, or
 * -errno with what to install. */
pid_t passt_start(bool map_loopback, int say_fd, int *card_fd, struct pil_err *err) PIL_MUST_CHECK;

#endif
