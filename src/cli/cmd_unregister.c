/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --unregister: removes a distribution with all its files.  It is taken out of the
 * registry first.  If the command is interrupted, only a folder is left, which the next
 * installation removes. */
#include <stdio.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/registry.h"
#include "config/work.h"
#include "machine/machine.h"
#include "tree/tree.h"

int cmd_unregister(struct cli *cli, int argc, char **argv)
{
	_auto_free char *dir = NULL;
	_auto_fd int lock_fd = -1;
	struct distro distro;
	struct pil_err err = {0};

	if (argc != 2)
		return cli_usage(CMD_UNREGISTER, "one distribution is needed");
	if (registry_find(&cli->dirs, argv[1], &distro, &err)) /* before we wait */
		return cli_fail(&err);
	lock_fd = registry_lock(&cli->dirs, &err);
	if (lock_fd < 0 || registry_find(&cli->dirs, argv[1], &distro, &err))
		return cli_fail(&err);
	dir = str_printf("%s/distros/%s", cli->dirs.data, distro.name);
	work_announce(lock_fd, "Uninstalling", distro.name, distro.version);
	puts("Unregistering.");
	fflush(stdout);
	/* Forgotten first: were we killed in the middle, the rest is a folder to clean up. */
	if (machine_stop(&cli->dirs, distro.name, false, &err) ||
	    registry_remove(&cli->dirs, distro.name, &err) || tree_remove(dir, &err))
		return cli_fail(&err);
	puts("The operation completed successfully.");
	return 0;
}
