/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --install: makes a distribution and the kits that it needs.
 *
 * Theory of operation: the registry's lock is held for the whole time, and distro.json is written
 * last.  A distribution that was interrupted is not listed; the next installation removes its
 * folder. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/registry.h"
#include "disk/form.h"
#include "kit/runtime_kit.h"
#include "machine/machine.h"
#include "tree/recipe.h"
#include "tree/tree.h"

struct options {
	const char *flavor, *name;
	uint64_t version;
	bool no_launch, no_distribution;
};

static int parse(int argc, char **argv, struct options *o)
{
	char why[64];
	int id;

	*o = (struct options){0};
	optind = 1;
	while ((id = options_next(CMD_INSTALL, "", argc, argv)) != OPTIONS_END) {
		if (id == OPT_INSTALL_DISTRIBUTION)
			o->flavor = optarg;
		else if (id == OPT_INSTALL_NO_LAUNCH)
			o->no_launch = true;
		else if (id == OPT_INSTALL_NAME)
			o->name = optarg;
		else if (id == OPT_INSTALL_NO_DISTRIBUTION)
			o->no_distribution = true;
		else if (id == OPT_INSTALL_VERSION && str_to_u64(optarg, 3, &o->version) &&
			 o->version)
			continue;
		else if (id == OPT_INSTALL_VERSION)
			return cli_usage(CMD_INSTALL, "--version is 1 (sandbox) or 2 (microVM)");
		else if (id >= 0 && options_all[id].kind == OPTION_REFUSED) {
			snprintf(why, sizeof(why), "--%s is not supported yet",
				 options_all[id].name);
			return cli_usage(CMD_INSTALL, why);
		} else
			return cli_usage(CMD_INSTALL, options_why());
	}
	if (optind < argc && !o->flavor)
		o->flavor = argv[optind++];
	if (optind < argc)
		return cli_usage(CMD_INSTALL, "too many names");
	return 0;
}

static int unknown_flavor(void)
{
	fputs("pillion: There is no distribution with the supplied name.\n"
	      "The following is a list of valid distributions that can be installed.\n"
	      "Install using 'pillion --install <Distro>'.\n\n",
	      stderr);
	for (const struct recipe *r = recipes_distro; r->name; r++)
		fprintf(stderr, "%-16s%s\n", r->name, r->title);
	return EXIT_FAILURE;
}

static int check_name(struct cli *cli, const char *name, struct pil_err *err)
{
	struct distro there;

	if (!str_is_name(name))
		return pil_err_say(
			err, EINVAL,
			"install '%s': a name is 1 to 64 letters, digits, '.', '_' or '-'", name);
	if (registry_find(&cli->dirs, name, &there, NULL) == 0) {
		pil_err_hint(
			err,
			"pillion -d %s starts it; --install ... --name OTHER makes a second one",
			name);
		return pil_err_say(
			err, EEXIST,
			"install '%s': A distribution with the supplied name already exists.",
			name);
	}
	return 0;
}

static int install(struct cli *cli, const struct recipe *recipe, const char *name, unsigned version,
		   const struct config *config, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/distros/%s", cli->dirs.data, name);
	_auto_free char *default_path = str_printf("%s/default", cli->dirs.data);
	_auto_fd int lock_fd = registry_lock(&cli->dirs, err);
	struct distro distro = {.version = 1};
	int ret;

	if (lock_fd < 0)
		return lock_fd;
	snprintf(distro.name, sizeof(distro.name), "%s", name);
	snprintf(distro.flavor, sizeof(distro.flavor), "%s", recipe->name);
	ret = check_name(cli, name, err); /* again: it may have come while we waited */
	if (ret)
		return ret;
	registry_announce(lock_fd, "Installing", name, version);
	tree_sweep(&cli->dirs);
	ret = form_kits(&cli->dirs, version, config, KIT_THERE, NULL, err);
	if (ret < 0)
		return ret;
	ret = tree_install(&cli->dirs, recipe, dir, err);
	if (!ret) {
		runtime_kit_warn(&cli->dirs, config->ggml_dir, name);
		ret = form_change(&cli->dirs, &distro, version, config, err);
	}
	if (ret) {
		if (tree_remove(dir, NULL))
			fprintf(stderr, "(%s is left behind; the next try removes it)\n", dir);
		return ret;
	}
	return path_exists(default_path) ? 0 : registry_set_default(&cli->dirs, name, err);
}

/* As asked for, or as the config says, or the best that this host can do. */
static int choose_version(struct cli *cli, struct options *o, const struct config *config,
			  struct pil_err *err)
{
	const struct machine_ops *backend;

	if (!o->version)
		o->version = config->default_version;
	backend = machine_backend(&cli->dirs, (unsigned)o->version, err);
	if (!backend)
		return -ENOTSUP;
	o->version = backend->version;
	return 0;
}

int cmd_install(struct cli *cli, int argc, char **argv)
{
	const struct recipe *recipe = recipes_distro;
	_auto_free char *path = NULL;
	const char *name;
	struct config config;
	struct pil_err err = {0};
	struct options o;
	int ret = parse(argc, argv, &o);

	if (ret)
		return ret;
	if (o.no_distribution)
		return cmd_update_kits(cli, KIT_THERE);
	if (o.flavor && !(recipe = recipe_find(o.flavor)))
		return unknown_flavor();
	name = o.name ? o.name : recipe->name;
	path = str_printf("%s/config", cli->dirs.config);
	if (check_name(cli, name, &err) || config_load(&config, path, &err))
		return cli_fail(&err);
	ret = choose_version(cli, &o, &config, &err);
	if (!ret) {
		fprintf(stderr, "Installing: %s\n", recipe->title);
		ret = install(cli, recipe, name, (unsigned)o.version, &config, &err);
	}
	config_finish(&config);
	if (ret)
		return cli_fail(&err);
	printf("Distribution successfully installed. It can be launched via 'pillion -d %s'\n",
	       name);
	fflush(stdout);
	if (o.no_launch || !isatty(STDIN_FILENO))
		return 0;
	return cmd_run(cli, 3, (char *[]){(char *)"pillion", (char *)"-d", (char *)name, NULL});
}
