/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --terminate: stops one machine. */
#include <stdio.h>

#include "cli/cli.h"
#include "config/registry.h"
#include "machine/machine.h"

int cmd_terminate(struct cli *cli, int argc, char **argv)
{
	struct distro distro;
	struct pil_err err = {0};

	if (argc != 2)
		return cli_usage(CMD_TERMINATE, "one distribution is needed");
	if (registry_find(&cli->dirs, argv[1], &distro, &err) ||
	    machine_stop(&cli->dirs, distro.name, false, &err))
		return cli_fail(&err);
	puts("The operation completed successfully.");
	return 0;
}
