/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --help: all commands, in the sections that wsl's has, and the options that come before a
 * command for a machine.  The texts are those of options.def. */
#include <stdbool.h>
#include <stdio.h>

#include "cli/cli.h"

/* Commands for distributions; the others are for pillion as a whole. */
static const enum cmd_id of_distributions[] = {
	CMD_CLONE,       CMD_EXPORT,   CMD_IMPORT,    CMD_IMPORT_IN_PLACE,
	CMD_LIST,        CMD_RESTORE,  CMD_RM,        CMD_SET_DEFAULT,
	CMD_SET_VERSION, CMD_SNAPSHOT, CMD_TERMINATE, CMD_UNREGISTER,
};

static bool is_of_distributions(int cmd)
{
	for (size_t i = 0; i < ARRAY_SIZE(of_distributions); i++)
		if ((int)of_distributions[i] == cmd)
			return true;
	return false;
}

static void print_option(enum option_id id, int indent)
{
	const struct cmd_option *o = &options_all[id];

	printf("%*s--%s", indent, "", o->name);
	if (o->letter)
		printf(", -%c", o->letter);
	if (o->argument)
		printf(" %s", o->argument);
	printf("\n%*s%s\n\n", indent + 4, "", o->help);
}

static bool is_shown(int option, int cmd)
{
	const struct cmd_option *o = &options_all[option];

	return (int)o->cmd == cmd && o->help;
}

static void print_command(int cmd)
{
	const struct cmd *c = &options_cmds[cmd];
	bool options = false;

	for (int i = 0; i < OPT_NUM; i++)
		options = options || is_shown(i, cmd);
	printf("    %s%s%s%s%s%s\n        %s\n\n", c->name, c->alias ? ", " : "",
	       c->alias ? c->alias : "", c->operands[0] ? " " : "", c->operands,
	       options ? " [Options...]" : "", c->help);
	if (options)
		puts("        Options:");
	for (int i = 0; i < OPT_NUM; i++)
		if (is_shown(i, cmd))
			print_option((enum option_id)i, 12);
}

static void print_commands(bool distributions)
{
	for (int i = 0; i < CMD_NUM; i++)
		if (options_cmds[i].help && is_of_distributions(i) == distributions)
			print_command(i);
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
	print_option(OPT_RUN_EXEC, 4);
	print_option(OPT_RUN_SHELL_TYPE, 4);
	puts("    --\n"
	     "        Pass the remaining command line as-is.\n"
	     "\n"
	     "Options:");
	for (int i = 0; i < OPT_NUM; i++)
		if (is_shown(i, CMD_RUN) && i != OPT_RUN_EXEC && i != OPT_RUN_SHELL_TYPE)
			print_option((enum option_id)i, 4);
	puts("Arguments for managing pillion:\n");
	print_commands(false);
	puts("Arguments for managing distributions in pillion:\n");
	print_commands(true);
	return 0;
}
