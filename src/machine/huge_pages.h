/* SPDX-License-Identifier: Apache-2.0
 *
 * huge_pages.h -- does this host back the memory of microVMs with huge pages? */
#ifndef PIL_HUGE_PAGES_H
#define PIL_HUGE_PAGES_H

#include <stdbool.h>

struct huge_pages {
	bool own, shared;  /* of machines without and with folders of the host */
	char command[200]; /* allows what is not; empty: nothing is missing, or nothing helps */
	char text[400];    /* for people: all of it in one line */
};

void huge_pages_look(struct huge_pages *out);

/* The same of what "enabled" and "shmem_enabled" in /sys/kernel/mm/transparent_hugepage say; NULL:
 * there is no such file.  For tests. */
void huge_pages_judge(const char *enabled, const char *shmem_enabled, struct huge_pages *out);

#endif
