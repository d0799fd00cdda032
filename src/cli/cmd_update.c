/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "config.h"
#include "fd.h"
#include "form.h"
#include "kit.h"
#include "machine.h"
#include "registry.h"
#include "str.h"

/* Do microVMs run here, or are there any? */
static unsigned needed_version(const struct state_dirs *dirs)
{
	const struct machine_ops *ops = machine_backend(dirs, 0, NULL);
	_auto_free struct distro *list = NULL;
	int n = registry_list(dirs, &list, NULL);
	unsigned version = ops ? ops->version : 1;

	for (int i = 0; i < n; i++)
		if (list[i].version > version)
			version = list[i].version;
	return version;
}

static int update(struct cli *cli)
{
	_auto_free char *path = str_printf("%s/config", cli->dirs.config);
	_auto_fd int lock_fd = -1;
	struct config config;
	struct pil_err err = {0};
	int ret = config_load(&config, path, &err);

	if (ret)
		return cli_fail(&err);
	lock_fd = registry_lock(&cli->dirs, &err);
	ret = lock_fd < 0 ? lock_fd
			  : form_kits(&cli->dirs, needed_version(&cli->dirs), &config, &err);
	if (ret >= 0)
		kit_warn_of_ggml(&cli->dirs, config.ggml_dir, NULL);
	config_finish(&config);
	if (ret < 0)
		return cli_fail(&err);
	puts(ret ? "The kits have been installed."
		 : "The most recent version of the kits is already installed.");
	return 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"pre-release", no_argument, NULL, 'i'},
		{"web-download", no_argument, NULL, 'i'},
		{"confirm", no_argument, NULL, 'i'},
		{"prompt-before-exit", no_argument, NULL, 'i'},
		{0},
	};
	int ret, index = 0;

	optind = 1;
	while ((ret = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (ret != 'i')
			return cli_usage(&cmd_update, NULL);
		cli_ignored(options[index].name);
	}
	if (optind < argc)
		return cli_usage(&cmd_update, "it takes no names");
	return update(cli);
}

const struct cmd cmd_update = {"--update", NULL, "",
			       "Install or update the kits that machines need.", run};
