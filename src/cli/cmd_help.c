/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli.h"

static int run(struct cli *cli, int argc, char **argv)
{
	(void)cli;
	(void)argc;
	(void)argv;
	puts("Usage: pillion [Argument] [Options...] [CommandLine]\n"
	     "\n"
	     "Arguments for running Linux binaries:\n"
	     "\n"
	     "    If no command line is provided, pillion launches the default shell.\n"
	     "\n"
	     "    --exec, -e <CommandLine>\n"
	     "        Execute the specified command without using the default Linux shell.\n"
	     "\n"
	     "    --shell-type <standard|login|none>\n"
	     "        Execute the specified command with the provided shell type.\n"
	     "\n"
	     "    --\n"
	     "        Pass the remaining command line as-is.\n"
	     "\n"
	     "Options:\n"
	     "    --cd <Directory>\n"
	     "        Sets the specified directory as the current working directory; ~ is the "
	     "home.\n"
	     "\n"
	     "    --distribution, -d <DistroName>\n"
	     "        Run the specified distribution.\n"
	     "\n"
	     "    --user, -u <UserName>\n"
	     "        Run as the specified user.\n"
	     "\n"
	     "Arguments for managing pillion and distributions:\n");
	for (const struct cmd *const *c = cmd_all; *c; c++) {
		if (!(*c)->help)
			continue;
		printf("    %s%s%s %s\n        %s\n\n", (*c)->name, (*c)->alias ? ", " : "",
		       (*c)->alias ? (*c)->alias : "", (*c)->usage, (*c)->help);
	}
	return 0;
}

const struct cmd cmd_help = {"--help", "-h", "", "Display usage information.", run};
