/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --update: installs or renews the kits: the runtime that executors run in, and the kernel
 * of microVMs. */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/registry.h"
#include "disk/form.h"
#include "kit/kernel.h"
#include "kit/runtime_kit.h"
#include "machine/backend.h"
#include "machine/machine.h"

/* Do microVMs run here, or are there any? */
static unsigned needed_version(const struct state_dirs *dirs)
{
	const struct backend *ops = backend_choose(dirs, 0, NULL);
	_auto_free struct distro *list = NULL;
	int n = registry_list(dirs, &list, NULL);
	unsigned version = ops ? ops->version : 1;

	for (int i = 0; i < n; i++)
		if (list[i].version > version)
			version = list[i].version;
	return version;
}

/* @done: enum kit_done, -1: the kit is not needed; @of: the package it is for, NULL: unknown */
static void say(const char *title, int done, const char *of, enum kit_wish wish)
{
	static const char *const what[] = {[KIT_KEPT] = "the most recent version is already there",
					   [KIT_MADE] = "installed",
					   [KIT_RENEWED] = "updated",
					   [KIT_HELD] = "kept, as nothing newer would do"};

	static_assert(ARRAY_SIZE(what) == KIT_NUM_DONE, "what");
	if (done < 0)
		return;
	printf("%s: %s", title,
	       done == KIT_KEPT && wish == KIT_THERE ? "already there" : what[done]);
	if (of)
		printf(" (%s)", of);
	putchar('\n');
}

int cmd_update_kits(struct cli *cli, enum kit_wish wish)
{
	_auto_free char *path = str_printf("%s/config", cli->dirs.config);
	_auto_fd int lock_fd = -1;
	struct config config;
	struct form_kits done;
	struct pil_err err = {0};
	int ret = config_load(&config, path, &err);

	if (ret)
		return cli_fail(&err);
	lock_fd = registry_lock(&cli->dirs, &err);
	ret = lock_fd < 0 ? lock_fd
			  : form_kits(&cli->dirs, needed_version(&cli->dirs), &config, wish, &done,
				      &err);
	if (ret == 0) {
		_auto_free char *runtime = runtime_kit_packaged(&cli->dirs);
		_auto_free char *kernel = kernel_kit_packaged(&cli->dirs, done.suite);

		say("Runtime kit", done.runtime, runtime, wish);
		say("Guest kernel", done.kernel, kernel, wish);
		if (done.runtime == KIT_RENEWED || done.kernel == KIT_RENEWED)
			puts("What runs keeps what it was started with: pillion --shutdown ends "
			     "it.");
		runtime_kit_warn(&cli->dirs, config.ggml_dir, NULL);
	}
	config_finish(&config);
	return ret ? cli_fail(&err) : 0;
}

/* The kits and those before them change places; again is back again. */
static int roll_back(struct cli *cli)
{
	_auto_free char *runtime = NULL;
	_auto_fd int lock_fd = -1;
	struct pil_err err = {0};
	int n;

	lock_fd = registry_lock(&cli->dirs, &err);
	n = lock_fd < 0 ? lock_fd : kit_roll_back(&cli->dirs, &err);
	if (!n) {
		pil_err_hint(&err, "pillion --update keeps the kits that it replaces");
		n = pil_err_say(&err, ENOENT, "roll back: there are no kits before these");
	}
	if (n < 0)
		return cli_fail(&err);
	runtime = runtime_kit_packaged(&cli->dirs);
	say("Runtime kit", KIT_RENEWED, runtime, KIT_THERE);
	puts("What runs keeps what it was started with: pillion --shutdown ends it.");
	return 0;
}

int cmd_update(struct cli *cli, int argc, char **argv)
{
	bool back = false;
	int id;

	optind = 1;
	while ((id = options_next(CMD_UPDATE, "", argc, argv)) == OPT_UPDATE_ROLLBACK)
		back = true;
	if (id != OPTIONS_END)
		return cli_usage(CMD_UPDATE, options_why());
	if (optind < argc)
		return cli_usage(CMD_UPDATE, "it takes no names");
	if (back)
		return roll_back(cli);
	return cmd_update_kits(cli, KIT_NEWEST);
}
