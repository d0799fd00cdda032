/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "fd.h"
#include "machine.h"
#include "registry.h"
#include "str.h"

static int run(struct cli *cli, int argc, char **argv)
{
	_auto_fd int lock_fd = -1;
	struct distro distro;
	struct pil_err err = {0};
	uint64_t version;

	if (argc != 3)
		return cli_usage(&cmd_set_version, "a distribution and a version are needed");
	if (!str_to_u64(argv[2], 3, &version) || version == 0)
		return cli_usage(&cmd_set_version, "the version is 1 (sandbox) or 2 (microVM)");
	if (version == 3) /* as some call the microVM */
		version = 2;
	if (registry_find(&cli->dirs, argv[1], &distro, &err) || /* before we wait */
	    !machine_backend((unsigned)version, &err))
		return cli_fail(&err);
	lock_fd = registry_lock(&cli->dirs, &err);
	if (lock_fd < 0 || registry_find(&cli->dirs, argv[1], &distro, &err))
		return cli_fail(&err);
	if (machine_running(&cli->dirs, distro.name)) {
		pil_err_hint(&err, "pillion --terminate %s", distro.name);
		pil_err_say(&err, EXIT_FAILURE, "set the version of '%s': it is running",
			    distro.name);
		return cli_fail(&err);
	}
	distro.version = (unsigned)version;
	if (registry_add(&cli->dirs, &distro, &err))
		return cli_fail(&err);
	puts("The operation completed successfully.");
	return 0;
}

const struct cmd cmd_set_version = {"--set-version", NULL, "<Distro> <1|2>",
				    "Changes the version of the specified distribution.", run};
