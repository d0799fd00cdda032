/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --set-default: which distribution is meant where none is named. */
#include <stdio.h>

#include "cli/cli.h"
#include "config/registry.h"

int cmd_set_default(struct cli *cli, int argc, char **argv)
{
	struct pil_err err = {0};

	if (argc != 2)
		return cli_usage(CMD_SET_DEFAULT, "one distribution is needed");
	if (registry_set_default(&cli->dirs, argv[1], &err))
		return cli_fail(&err);
	puts("The operation completed successfully.");
	return 0;
}
