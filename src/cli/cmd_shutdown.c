/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cli.h"
#include "fd.h"
#include "machine.h"
#include "registry.h"

static int run(struct cli *cli, int argc, char **argv)
{
	_auto_free struct distro *list = NULL;
	bool force = argc == 2 && !strcmp(argv[1], "--force");
	struct pil_err err = {0};
	int n, failed = 0;

	if (argc > 2 || (argc == 2 && !force))
		return cli_usage(&cmd_shutdown, "unknown option");
	n = registry_list(&cli->dirs, &list, &err);
	if (n < 0)
		return cli_fail(&err);
	for (int i = 0; i < n; i++)
		if (machine_stop(&cli->dirs, list[i].name, force, &err))
			failed = cli_fail(&err);
	return failed;
}

const struct cmd cmd_shutdown = {"--shutdown", NULL, "[--force]",
				 "Immediately terminates all running distributions.", run};
