/* SPDX-License-Identifier: Apache-2.0
 *
 * own_addrs.c -- see own_addrs.h.  They are sorted, so that the same ones are equal in whatever
 * order the kernel names them. */
#include "base/own_addrs.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"

/* False: not one that is kept. */
static bool read_one(const struct sockaddr *sa, uint8_t *to)
{
	if (sa && sa->sa_family == AF_INET) {
		memcpy(to, own_addrs_mapped, sizeof(own_addrs_mapped));
		memcpy(to + sizeof(own_addrs_mapped),
		       &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
		return to[12] != 127;
	}
	if (sa && sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)(const void *)sa;

		memcpy(to, &sin6->sin6_addr, OWN_ADDR_BYTES);
		return !IN6_IS_ADDR_LINKLOCAL(&sin6->sin6_addr) &&
		       !IN6_IS_ADDR_LOOPBACK(&sin6->sin6_addr);
	}
	return false;
}

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, OWN_ADDR_BYTES);
}

bool own_addrs_read(struct own_addrs *addrs)
{
	struct ifaddrs *all = NULL;
	bool fit = true;

	memset(addrs, 0, sizeof(*addrs));
	addrs->closed = OWN_ADDRS_CLOSED;
	if (getifaddrs(&all))
		return false;
	for (const struct ifaddrs *a = all; a; a = a->ifa_next) {
		if (addrs->n == OWN_ADDRS_MAX) {
			uint8_t one[OWN_ADDR_BYTES];

			fit = fit && !read_one(a->ifa_addr, one);
		} else if (read_one(a->ifa_addr, addrs->at[addrs->n])) {
			addrs->n++;
		}
	}
	freeifaddrs(all);
	qsort(addrs->at, addrs->n, OWN_ADDR_BYTES, compare);
	return fit;
}

bool own_addrs_refresh(const struct own_addrs *known, struct own_addrs *now)
{
	static bool said;
	bool all;

	if (!known->closed)
		return false;
	all = own_addrs_read(now);
	if (!all && !said)
		log_warn("network: the host has more than %d addresses: machines can reach the "
			 "host's services at the others",
			 OWN_ADDRS_MAX);
	said = !all;
	return known->closed != now->closed || known->n != now->n ||
	       memcmp(known->at, now->at, (size_t)now->n * OWN_ADDR_BYTES) != 0;
}

bool own_addrs_have(const struct own_addrs *addrs, const char *text)
{
	uint8_t one[OWN_ADDR_BYTES];

	if (inet_pton(AF_INET, text, one + sizeof(own_addrs_mapped)) == 1)
		memcpy(one, own_addrs_mapped, sizeof(own_addrs_mapped));
	else if (inet_pton(AF_INET6, text, one) != 1)
		return false;
	for (uint32_t i = 0; addrs->closed && i < addrs->n; i++)
		if (!memcmp(addrs->at[i], one, sizeof(one)))
			return true;
	return false;
}
