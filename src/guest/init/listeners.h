/* SPDX-License-Identifier: Apache-2.0
 *
 * listeners.h -- the TCP ports that programs of this machine listen on. */
#ifndef PIL_GUEST_LISTENERS_H
#define PIL_GUEST_LISTENERS_H

#include <stdint.h>

#include "agent/agent.h"

/* Fills @ports, sorted and each once, with those that localhost may connect to.  Returns how many;
 * beyond AGENT_MAX_PORTS they are left out. */
unsigned listeners_find(uint16_t ports[AGENT_MAX_PORTS]);

/* The ways it has, for tests: each adds to the @n ports of @ports and returns how many there are.
 * A /proc/net/tcp or tcp6 text; and the kernel's answer to SOCK_DIAG_BY_FAMILY. */
unsigned listeners_parse_text(const char *text, uint16_t *ports, unsigned n);
unsigned listeners_parse_diag(const void *answer, uint32_t len, uint16_t *ports, unsigned n,
			      int *end);

#endif
