/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <sys/utsname.h>

#include "cli.h"

static int run(struct cli *cli, int argc, char **argv)
{
	struct utsname host = {0};

	(void)cli;
	(void)argc;
	(void)argv;
	uname(&host);
	printf("pillion version: %s\nKernel version: %s\n", PILLION_VERSION, host.release);
	return 0;
}

const struct cmd cmd_version = {"--version", "-v", "", "Display version information.", run};
