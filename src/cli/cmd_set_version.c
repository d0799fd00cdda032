/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --set-version: turns a sandbox's tree into a microVM's disk, or back (form.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/registry.h"
#include "config/work.h"
#include "disk/form.h"
#include "machine/backend.h"
#include "machine/machine.h"

int cli_claim_stopped(struct cli *cli, int lock_fd, const char *state, const struct distro *distro,
		      struct pil_err *err)
{
	work_announce(lock_fd, state, distro->name, distro->version);
	if (!machine_running(&cli->dirs, distro->name))
		return 0;
	pil_err_hint(err, "pillion --terminate %s", distro->name);
	return pil_err_say(err, EBUSY, "change '%s': it is running", distro->name);
}

static int change(struct cli *cli, const char *name, unsigned version, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/config", cli->dirs.config);
	_auto_fd int lock_fd = -1;
	struct config config;
	struct distro distro;
	int ret = config_load(&config, path, err);

	if (ret)
		return ret;
	lock_fd = registry_lock(&cli->dirs, err);
	ret = lock_fd < 0 ? lock_fd : registry_find(&cli->dirs, name, &distro, err);
	if (!ret)
		ret = cli_claim_stopped(cli, lock_fd, "Converting", &distro, err);
	if (!ret && distro.version == version) {
		puts("The distribution is already the requested version.");
		config_finish(&config);
		return 0;
	}
	if (!ret)
		ret = form_change(&cli->dirs, &distro, version, &config, err);
	if (!ret)
		puts("The operation completed successfully.");
	config_finish(&config);
	return ret;
}

int cmd_set_version(struct cli *cli, int argc, char **argv)
{
	struct distro distro;
	struct pil_err err = {0};
	uint64_t version;

	if (argc != 3)
		return cli_usage(CMD_SET_VERSION, "a distribution and a version are needed");
	if (!str_to_u64(argv[2], 3, &version) || version == 0)
		return cli_usage(CMD_SET_VERSION, "the version is 1 (sandbox) or 2 (microVM)");
	if (version == 3) /* as some call the microVM */
		version = 2;
	if (registry_find(&cli->dirs, argv[1], &distro, &err) || /* before we wait */
	    !backend_choose(&cli->dirs, (unsigned)version, &err) ||
	    change(cli, argv[1], (unsigned)version, &err))
		return cli_fail(&err);
	return 0;
}
