/* SPDX-License-Identifier: Apache-2.0
 *
 * deny.c -- runs a program to which the kernel denies some system calls, as an old kernel or the
 * filter of a container does.
 *
 *   deny CALL[/N/VALUE]=ERRNO[,...] PROGRAM [ARGUMENT...]
 *
 * With /N/VALUE only calls whose argument number N (from 0) is VALUE. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <seccomp.h>

#include "base/compiler.h"

static int errno_named(const char *name)
{
	static const struct {
		const char *name;
		int value;
	} all[] = {{"EMFILE", EMFILE},
		   {"ENOPROTOOPT", ENOPROTOOPT},
		   {"ENOSPC", ENOSPC},
		   {"ENOSYS", ENOSYS},
		   {"EPERM", EPERM}};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (!strcmp(name, all[i].name))
			return all[i].value;
	return 0;
}

static int add_rule(scmp_filter_ctx filter, char *call, int error)
{
	char *name = strsep(&call, "/"), *argument = strsep(&call, "/");
	int number = seccomp_syscall_resolve_name(name);

	if (!error || number == __NR_SCMP_ERROR || (argument && !call))
		return -EINVAL;
	if (!argument)
		return seccomp_rule_add(filter, SCMP_ACT_ERRNO((unsigned)error), number, 0);
	return seccomp_rule_add(filter, SCMP_ACT_ERRNO((unsigned)error), number, 1,
				SCMP_CMP64((unsigned)atoi(argument), SCMP_CMP_EQ,
					   strtoull(call, NULL, 0)));
}

int main(int argc, char **argv)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	char *rest = argc > 2 ? argv[1] : NULL, *rule;

	while ((rule = strsep(&rest, ","))) {
		char *call = strsep(&rule, "=");
		const char *name = call;

		if (add_rule(filter, call, rule ? errno_named(rule) : 0)) {
			fprintf(stderr, "deny: what is '%s'?\n", name);
			return EXIT_FAILURE;
		}
	}
	if (argc < 3 || seccomp_load(filter)) {
		fputs("usage: deny CALL[/N/VALUE]=ERRNO[,...] PROGRAM [ARGUMENT...]\n", stderr);
		return EXIT_FAILURE;
	}
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return EXIT_FAILURE;
}
