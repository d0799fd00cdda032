/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli.h"
#include "registry.h"

static int run(struct cli *cli, int argc, char **argv)
{
	struct pil_err err = {0};

	if (argc != 2)
		return cli_usage(&cmd_set_default, "one distribution is needed");
	if (registry_set_default(&cli->dirs, argv[1], &err))
		return cli_fail(&err);
	puts("The operation completed successfully.");
	return 0;
}

const struct cmd cmd_set_default = {"--set-default", "-s", "<Distro>",
				    "Sets the distribution as the default.", run};
