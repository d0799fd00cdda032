/* SPDX-License-Identifier: Apache-2.0
 *
 * passwd.h -- users of the machine, from its own /etc/passwd and /etc/group.
 *
 * pillion-init is static, and the C library's lookup functions want to load plug-ins. */
#ifndef PIL_PASSWD_H
#define PIL_PASSWD_H

#include <stdbool.h>
#include <sys/types.h>

enum { PASSWD_MAX_GROUPS = 64 };

struct user {
	char name[256], home[1024], shell[1024];
	uid_t uid;
	gid_t gid;
	gid_t groups[PASSWD_MAX_GROUPS];
	int n_groups;
};

/* Finds @name, or the user with that decimal uid.  False: none such. */
bool passwd_find(const char *name, struct user *out);

/* The same on given texts, for tests. */
bool passwd_parse(const char *passwd, const char *group, const char *name, struct user *out);

#endif
