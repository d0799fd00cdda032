/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --set-default-version: defaultVersion in the user's config, whose other lines stay. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/config_keys.h"

enum { MAX_FILE_BYTES = 1 << 20, LOCK_MS = 5000 };

/* Writes the changed text beside the file, reads it as all do, and only then replaces it. */
static int replace(const char *path, const char *text, struct pil_err *err)
{
	_auto_free char *trial = str_printf("%s.trial", path);
	int ret = pil_write_file(trial, 0600, text, strlen(text));
	struct config config;

	if (ret)
		return pil_err_set(err, -ret, "write '%s'", trial);
	ret = config_load(&config, trial, err);
	if (!ret)
		config_finish(&config);
	if (!ret && rename(trial, path))
		ret = pil_err_set(err, errno, "replace '%s'", path);
	if (ret)
		unlink(trial);
	return ret;
}

static int set(struct cli *cli, const char *version, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/config", cli->dirs.config);
	_auto_free char *lock_path = str_printf("%s/config.lock", cli->dirs.data);
	const struct config_key *key = config_key_find("wsl2.defaultVersion", err);
	_auto_fd int lock_fd = -1;
	_auto_free char *before = NULL;
	_auto_free char *after = NULL;
	int ret = path_mkdirs(cli->dirs.config, 0700);

	if (!key)
		return -ENOENT;
	if (ret)
		return pil_err_set(err, -ret, "make folder '%s'", cli->dirs.config);
	lock_fd = state_lock(lock_path, LOCK_MS, err);
	if (lock_fd < 0)
		return lock_fd;
	if (path_exists(path) && pil_read_file(path, MAX_FILE_BYTES, &before) < 0)
		return pil_err_say(err, EIO, "read '%s'", path);
	after = config_text_set(before, key, (const char *const[]){version}, 1);
	return after ? replace(path, after, err) : pil_err_set(err, ENOMEM, "change '%s'", path);
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
