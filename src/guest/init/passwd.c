/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads /etc/passwd and /etc/group line by line.  The files are the machine's, so a line that is
 * too long or has a field that is no number is skipped. */
#include "guest/init/passwd.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/str.h"

enum { MAX_FILE = 4 << 20, N_PASSWD_FIELDS = 7 };

/* Copies field @index (from 0) of the colon-separated line at @line into @out. */
static bool field(const char *line, int index, char *out, size_t out_size)
{
	const char *end = strchrnul(line, '\n');
	const char *p = line;
	size_t len;

	while (index-- > 0) {
		p = memchr(p, ':', (size_t)(end - p));
		if (!p)
			return false;
		p++;
	}
	len = strcspn(p, ":\n");
	if (len >= out_size)
		return false;
	memcpy(out, p, len);
	out[len] = '\0';
	return true;
}

static bool parse_line(const char *line, struct user *u)
{
	char uid[16], gid[16];
	uint64_t uid_value, gid_value;

	if (!field(line, 0, u->name, sizeof(u->name)) || !field(line, 2, uid, sizeof(uid)) ||
	    !field(line, 3, gid, sizeof(gid)) || !field(line, 5, u->home, sizeof(u->home)) ||
	    !field(line, N_PASSWD_FIELDS - 1, u->shell, sizeof(u->shell)) ||
	    !str_to_u64(uid, UINT32_MAX - 1, &uid_value) ||
	    !str_to_u64(gid, UINT32_MAX - 1, &gid_value))
		return false;
	u->uid = (uid_t)uid_value;
	u->gid = (gid_t)gid_value;
	if (!u->shell[0])
		snprintf(u->shell, sizeof(u->shell), "/bin/sh");
	if (!u->home[0])
		snprintf(u->home, sizeof(u->home), "/");
	return true;
}

static bool is_member(const char *members, const char *name)
{
	size_t len = strlen(name);

	while (*members && *members != '\n') {
		size_t n = strcspn(members, ",\n");

		if (n == len && !memcmp(members, name, n))
			return true;
		members += n + (members[n] == ',');
	}
	return false;
}

static void parse_groups(const char *group, struct user *u)
{
	u->n_groups = 0;
	for (const char *line = group; *line; line = *line ? line + 1 : line) {
		char gid[16];
		uint64_t value;
		const char *members = line;

		for (int i = 0; i < 3 && members; i++) {
			members += strcspn(members, ":\n");
			members = *members == ':' ? members + 1 : NULL;
		}
		if (members && is_member(members, u->name) && field(line, 2, gid, sizeof(gid)) &&
		    str_to_u64(gid, UINT32_MAX - 1, &value) && u->n_groups < PASSWD_MAX_GROUPS)
			u->groups[u->n_groups++] = (gid_t)value;
		line = strchrnul(line, '\n');
	}
}

bool passwd_parse(const char *passwd, const char *group, const char *name, struct user *out)
{
	uint64_t uid = UINT64_MAX;

	if (!str_to_u64(name, UINT32_MAX - 1, &uid))
		uid = UINT64_MAX;
	for (const char *line = passwd; *line; line = *line ? line + 1 : line) {
		struct user u = {0};

		if (parse_line(line, &u) && (!strcmp(u.name, name) || u.uid == uid)) {
			*out = u;
			parse_groups(group, out);
			return true;
		}
		line = strchrnul(line, '\n');
	}
	return false;
}

bool passwd_find(const char *name, struct user *out)
{
	_auto_free char *passwd = NULL;
	_auto_free char *group = NULL;

	if (pil_read_file("/etc/passwd", MAX_FILE, &passwd) < 0)
		return false;
	if (pil_read_file("/etc/group", MAX_FILE, &group) < 0 && !(group = strdup("")))
		return false;
	return passwd_parse(passwd, group, name, out);
}
