/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "tree.h"

static int run(struct cli *cli, int argc, char **argv)
{
	struct pil_err err = {0};
	int ret;

	for (int i = 1; i < argc; i++)
		cli_ignored(argv[i]);
	ret = kit_ensure(&cli->dirs, &err);
	if (ret < 0)
		return cli_fail(&err);
	puts(ret ? "The runtime kit has been installed."
		 : "The most recent version of the runtime kit is already installed.");
	return 0;
}

const struct cmd cmd_update = {"--update", NULL, "",
			       "Install or update the kits that machines need.", run};
