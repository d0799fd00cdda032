/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --help: all commands, and the options that come before a command for a machine.  The
 * texts are those of options.def. */
#include <stdio.h>

#include "cli/cli.h"

static void print_option(enum option_id id)
{
	const struct cmd_option *o = &options_all[id];

	printf("    --%s", o->name);
	if (o->letter)
		printf(", -%c", o->letter);
	if (o->argument)
		printf(" %s", o->argument);
	printf("\n        %s\n\n", o->help);
}

int cmd_help(struct cli *cli, int argc, char **argv)
{
	(void)cli;
	(void)argc;
	(void)argv;
	puts("Usage: pillion [Argument] [Options...] [CommandLine]\n"
	     "\n"
	     "Arguments for running Linux binaries:\n"
	     "\n"
	     "    If no command line is provided, pillion launches the default shell.\n");
	print_option(OPT_RUN_EXEC);
	print_option(OPT_RUN_SHELL_TYPE);
	puts("    --\n"
	     "        Pass the remaining command line as-is.\n"
	     "\n"
	     "Options:");
	for (int i = 0; i < OPT_NUM; i++)
		if (options_all[i].cmd == CMD_RUN && i != OPT_RUN_EXEC && i != OPT_RUN_SHELL_TYPE)
			print_option((enum option_id)i);
	puts("Arguments for managing pillion and distributions:\n");
	for (int i = 0; i < CMD_NUM; i++) {
		const struct cmd *c = &options_cmds[i];

		if (!c->help)
			continue;
		printf("    %s%s%s ", c->name, c->alias ? ", " : "", c->alias ? c->alias : "");
		options_print_usage(stdout, (enum cmd_id)i);
		printf("\n        %s\n\n", c->help);
	}
	return 0;
}
