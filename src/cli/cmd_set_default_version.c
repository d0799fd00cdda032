/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --set-default-version: defaultVersion in the user's config, whose other lines stay. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/config_keys.h"

static int set(struct cli *cli, const char *version, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/config", cli->dirs.config);
	_auto_free char *lock_path = str_printf("%s/config.lock", cli->dirs.data);
	const struct config_key *key = config_key_find("wsl2.defaultVersion", err);
	int ret = path_mkdirs(cli->dirs.config, 0700);

	if (!key)
		return -ENOENT;
	if (ret)
		return pil_err_set(err, -ret, "make folder '%s'", cli->dirs.config);
	return config_text_change(path, lock_path, key, (const char *const[]){version}, 1,
				  config_check, err);
}

int cmd_set_default_version(struct cli *cli, int argc, char **argv)
{
	struct pil_err err = {0};
	uint64_t version;

	if (argc != 2)
		return cli_usage(CMD_SET_DEFAULT_VERSION, "a version is needed");
	if (!str_to_u64(argv[1], 3, &version) || version == 0)
		return cli_usage(CMD_SET_DEFAULT_VERSION,
				 "the version is 1 (sandbox) or 2 (microVM)");
	if (set(cli, version == 1 ? "1" : "2", &err))
		return cli_fail(&err);
	puts("The operation completed successfully.");
	return EXIT_SUCCESS;
}
