/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --shutdown: stops all machines, one after the other.  One that cannot be stopped does
 * not keep the others. */
#include <getopt.h>

#include "base/fd.h"
#include "cli/cli.h"
#include "config/registry.h"
#include "machine/machine.h"

int cmd_shutdown(struct cli *cli, int argc, char **argv)
{
	_auto_free struct distro *list = NULL;
	struct pil_err err = {0};
	int n, id, failed = 0;
	bool force = false;

	while ((id = options_next(CMD_SHUTDOWN, "", argc, argv)) == OPT_SHUTDOWN_FORCE)
		force = true;
	if (id != OPTIONS_END || optind < argc)
		return cli_usage(CMD_SHUTDOWN,
				 id == OPTIONS_WRONG ? options_why()
						     : "it stops all: --terminate NAME stops one");
	n = registry_list(&cli->dirs, &list, &err);
	if (n < 0)
		return cli_fail(&err);
	for (int i = 0; i < n; i++)
		if (machine_stop(&cli->dirs, list[i].name, force, &err))
			failed = cli_fail(&err);
	return failed;
}
