/* SPDX-License-Identifier: Apache-2.0
 *
 * deny.c -- runs a program to which the kernel denies some system calls, as an old kernel or the
 * filter of a container does.
 *
 *   deny CALL=ERRNO[,CALL=ERRNO...] PROGRAM [ARGUMENT...] */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <seccomp.h>

#include "compiler.h"

static int errno_named(const char *name)
{
	static const struct {
		const char *name;
		int value;
	} all[] = {{"EMFILE", EMFILE}, {"ENOSPC", ENOSPC}, {"ENOSYS", ENOSYS}, {"EPERM", EPERM}};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (!strcmp(name, all[i].name))
			return all[i].value;
	return 0;
}

int main(int argc, char **argv)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	char *rest = argc > 2 ? argv[1] : NULL, *rule;

	while ((rule = strsep(&rest, ","))) {
		char *call = strsep(&rule, "=");
		int number = seccomp_syscall_resolve_name(call);
		int error = rule ? errno_named(rule) : 0;

		if (!error || number == __NR_SCMP_ERROR ||
		    seccomp_rule_add(filter, SCMP_ACT_ERRNO((unsigned)error), number, 0)) {
			fprintf(stderr, "deny: what is '%s'?\n", call);
			return EXIT_FAILURE;
		}
	}
	if (argc < 3 || seccomp_load(filter)) {
		fputs("usage: deny CALL=ERRNO[,CALL=ERRNO...] PROGRAM [ARGUMENT...]\n", stderr);
		return EXIT_FAILURE;
	}
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return EXIT_FAILURE;
}
