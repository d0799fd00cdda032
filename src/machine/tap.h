/* SPDX-License-Identifier: Apache-2.0
 *
 * tap.h -- a sandbox's network card, whose other side is pasta: only ARP and IP leave by it, and
 * nothing to an address that is the host's own: as virtio_net.h. */
#ifndef PIL_TAP_H
#define PIL_TAP_H

#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"
#include "base/own_addrs.h"
#include "base/proc.h"

#define TAP_NAME "eth0"

enum { TAP_MAX_CODE = 64 + 9 * OWN_ADDRS_MAX };

struct sock_filter;

/* Writes what keeps frames from @own and from localhost to @code, which has room for TAP_MAX_CODE;
 * returns its length. */
unsigned short tap_filter(struct sock_filter *code, const struct own_addrs *own);

/* Starts the pasta of @argv, which makes card TAP_NAME in network namespace @net_fd, in the user
 * namespace of process @target, and waits until it has that card.  Its pid, or -errno.  *@card_fd,
 * the caller's, is the card's other end, that pasta has too: the card lives as long as one of them.
 */
pid_t tap_spawn_pasta(pid_t target, int net_fd, const struct own_addrs *own, char *const *argv,
		      const struct proc_opts *opts, int *card_fd,
		      struct pil_err *err) PIL_MUST_CHECK;

/* From now on nothing leaves to @own.  0 or -errno. */
int tap_keep_from(int card_fd, const struct own_addrs *own) PIL_MUST_CHECK;

#endif
