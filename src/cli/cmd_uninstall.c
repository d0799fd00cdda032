/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --uninstall: says what it would remove of the user's; with --yes it does.  The programs
 * themselves are removed the way they were installed, and models stay: they are the user's. */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/registry.h"
#include "machine/machine.h"
#include "tree/tree.h"

#define MODELS "models" /* in the cache */

static void say(const char *what, const char *path, const char *note)
{
	if (path_exists(path))
		printf("  %-14s %s%s\n", what, path, note);
}

static void say_all(struct cli *cli, const struct distro *list, int n)
{
	_auto_free char *kits = str_printf("%s/kits", cli->dirs.data);
	_auto_free char *config = str_printf("%s/config", cli->dirs.config);
	_auto_free char *models = str_printf("%s/" MODELS, cli->dirs.cache);

	for (int i = 0; i < n; i++) {
		_auto_free char *dir = str_printf("%s/distros/%s", cli->dirs.data, list[i].name);
		_auto_free char *real = realpath(dir, NULL);

		printf("  %-14s %s (%s)%s\n", "distribution", list[i].name, real ? real : dir,
		       machine_running(&cli->dirs, list[i].name) ? ", which is running" : "");
	}
	say("kits", kits, "");
	say("downloads", cli->dirs.cache, path_exists(models) ? " (but not models/)" : "");
	say("settings", config, "");
}

/* All in folder @path but @kept; and the folder itself where nothing is left in it. */
static int clear_folder(const char *path, const char *kept, struct pil_err *err)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	int ret = 0;

	while (dir && !ret && (e = readdir(dir))) {
		_auto_free char *file = str_printf("%s/%s", path, e->d_name);

		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    (!kept || strcmp(e->d_name, kept) != 0) && (ret = path_remove_tree(file)))
			pil_err_set(err, -ret, "remove '%s'", file);
	}
	if (dir)
		closedir(dir);
	if (!ret && rmdir(path) && errno != ENOTEMPTY && errno != ENOENT && errno != EEXIST)
		ret = pil_err_set(err, errno, "remove '%s'", path);
	return ret;
}

static int remove_kits(struct cli *cli, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/kits", cli->dirs.data);
	DIR *dir = opendir(path);
	struct dirent *e;
	int ret = 0;

	while (dir && !ret && (e = readdir(dir))) {
		_auto_free char *kit = str_printf("%s/%s", path, e->d_name);

		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			ret = tree_remove(kit, err);
	}
	if (dir)
		closedir(dir);
	return ret;
}

static int remove_distro(struct cli *cli, const char *name, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/distros/%s", cli->dirs.data, name);
	int ret = machine_stop(&cli->dirs, name, false, err);

	if (!ret)
		ret = registry_remove(&cli->dirs, name, err);
	return ret ? ret : tree_remove(dir, err);
}

static int remove_all(struct cli *cli, const struct distro *list, int n, struct pil_err *err)
{
	_auto_free char *config = str_printf("%s/config", cli->dirs.config);
	_auto_fd int lock_fd = registry_lock(&cli->dirs, err);
	int ret = lock_fd < 0 ? lock_fd : 0;

	for (int i = 0; i < n && !ret; i++) {
		printf("Removing %s ...\n", list[i].name);
		fflush(stdout);
		ret = remove_distro(cli, list[i].name, err);
	}
	if (!ret)
		tree_sweep(&cli->dirs);
	if (!ret)
		ret = remove_kits(cli, err);
	if (!ret)
		ret = clear_folder(cli->dirs.data, NULL, err);
	if (!ret)
		ret = clear_folder(cli->dirs.cache, MODELS, err);
	if (!ret && unlink(config) && errno != ENOENT)
		ret = pil_err_set(err, errno, "remove '%s'", config);
	return ret;
}

int cmd_uninstall(struct cli *cli, int argc, char **argv)
{
	_auto_free struct distro *list = NULL;
	struct pil_err err = {0};
	bool yes = false;
	int id, n;

	optind = 1;
	while ((id = options_next(CMD_UNINSTALL, "", argc, argv)) != OPTIONS_END) {
		if (id != OPT_UNINSTALL_YES)
			return cli_usage(CMD_UNINSTALL, options_why());
		yes = true;
	}
	if (optind < argc)
		return cli_usage(CMD_UNINSTALL, "it takes no names; --unregister removes one "
						"distribution");
	n = registry_list(&cli->dirs, &list, &err);
	if (n < 0)
		return cli_fail(&err);
	puts(yes ? "This is removed:" : "This would be removed, with all files in it:");
	say_all(cli, list, n);
	if (!yes) {
		puts("pillion --uninstall --yes removes it.  The programs are removed the way they "
		     "were installed.");
		return EXIT_SUCCESS;
	}
	fflush(stdout);
	if (remove_all(cli, list, n, &err))
		return cli_fail(&err);
	puts("The operation completed successfully.");
	return EXIT_SUCCESS;
}
