/* SPDX-License-Identifier: Apache-2.0
 *
 * The lines of wsl --version, in its order, because scripts count and cut them; what has no
 * counterpart here says so. */
#include <stdio.h>
#include <sys/utsname.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/config.h"
#include "kit/kernel.h"

/* What machines boot: heap; NULL: none has a kernel of its own.  Must work where nothing does. */
static char *machines_kernel(struct cli *cli)
{
	_auto_free char *path = NULL;
	struct config config = {0};
	const char *which;
	char *release;

	if (state_dirs_init(&cli->dirs, NULL))
		return NULL;
	path = str_printf("%s/config", cli->dirs.config);
	/* of a config that cannot be used others complain; here it is as if there were none */
	which = config_load(&config, path, NULL) ? NULL : config.kernel;
	release = kernel_release(&cli->dirs, which);
	config_finish(&config);
	state_dirs_finish(&cli->dirs);
	return release;
}

int cmd_version(struct cli *cli, int argc, char **argv)
{
	_auto_free char *kernel = machines_kernel(cli);
	struct utsname host = {0};

	(void)argc;
	(void)argv;
	uname(&host);
	printf("pillion version: %s\n", PILLION_VERSION);
	printf("Kernel version: %s%s\n", kernel ? kernel : host.release,
	       kernel ? "" : " (the host's, which sandboxes share; none for microVMs yet)");
	puts("WSLg version: none (no graphics)\n"
	     "MSRDC version: none (no remote desktop)\n"
	     "Direct3D version: none (programs compute through ggml)\n"
	     "DXCore version: none (pillion --status shows the devices)");
	printf("Windows version: none (the host is %s %s)\n", host.sysname, host.release);
	return 0;
}
