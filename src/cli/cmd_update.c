/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "fd.h"
#include "registry.h"
#include "tree.h"

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"pre-release", no_argument, NULL, 'i'},
		{"web-download", no_argument, NULL, 'i'},
		{"confirm", no_argument, NULL, 'i'},
		{"prompt-before-exit", no_argument, NULL, 'i'},
		{0},
	};
	_auto_fd int lock_fd = -1;
	struct pil_err err = {0};
	int ret, index = 0;

	optind = 1;
	while ((ret = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (ret != 'i')
			return cli_usage(&cmd_update, NULL);
		cli_ignored(options[index].name);
	}
	if (optind < argc)
		return cli_usage(&cmd_update, "it takes no names");
	lock_fd = registry_lock(&cli->dirs, &err);
	ret = lock_fd < 0 ? lock_fd : kit_ensure(&cli->dirs, &err);
	if (ret < 0)
		return cli_fail(&err);
	puts(ret ? "The runtime kit has been installed."
		 : "The most recent version of the runtime kit is already installed.");
	return 0;
}

const struct cmd cmd_update = {"--update", NULL, "",
			       "Install or update the kits that machines need.", run};
