/* SPDX-License-Identifier: Apache-2.0
 *
 * own_addrs.h -- the addresses that the host has itself: what a machine sends there reaches the
 * host's services, which see it come from the host. */
#ifndef PIL_OWN_ADDRS_H
#define PIL_OWN_ADDRS_H

#include <stdbool.h>
#include <stdint.h>

enum { OWN_ADDRS_MAX = 64, OWN_ADDR_BYTES = 16 };
enum { OWN_ADDRS_OPEN, OWN_ADDRS_CLOSED, OWN_ADDRS_UNREAD /* closed, and not read yet */ };

/* Without padding: pillion-vmm is sent one as it is. */
struct own_addrs {
	uint32_t closed; /* OWN_ADDRS_x; 0: a machine may send there */
	uint32_t n;
	uint8_t at[OWN_ADDRS_MAX][OWN_ADDR_BYTES]; /* IPv4 as IPv6: ::ffff:a.b.c.d */
};

static const uint8_t own_addrs_mapped[12] = {[10] = 0xff, [11] = 0xff}; /* of IPv4 */

/* Those of the host's cards, without loopback and link-local ones.  False: there are more than fit,
 * and the rest is left out; or they cannot be read. */
bool own_addrs_read(struct own_addrs *addrs);

/* Reads them to @now, if @known is closed.  True: they are others than @known; where there are more
 * than fit, it is said once. */
bool own_addrs_refresh(const struct own_addrs *known, struct own_addrs *now);

/* Is @text, the address of a name server, one of @addrs? */
bool own_addrs_have(const struct own_addrs *addrs, const char *text);

#endif
