/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --install: makes a distribution, and the kits that it needs.  What it is made of is one
 * of pillion's own recipes, an archive that the list of distributions names, or a file. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/offers.h"
#include "config/config.h"
#include "disk/install.h"
#include "disk/source.h"
#include "machine/backend.h"
#include "machine/machine.h"
#include "tree/catalog.h"
#include "tree/recipe.h"

struct options {
	const char *flavor, *name, *file, *location;
	uint64_t version, disk_bytes;
	bool no_launch, no_distribution;
};

static int take_option(int id, struct options *o)
{
	switch (id) {
	case OPT_INSTALL_DISTRIBUTION:
		o->flavor = optarg;
		return 0;
	case OPT_INSTALL_FROM_FILE:
		o->file = optarg;
		return 0;
	case OPT_INSTALL_LOCATION:
		o->location = optarg;
		return 0;
	case OPT_INSTALL_NAME:
		o->name = optarg;
		return 0;
	case OPT_INSTALL_NO_DISTRIBUTION:
		o->no_distribution = true;
		return 0;
	case OPT_INSTALL_NO_LAUNCH:
		o->no_launch = true;
		return 0;
	case OPT_INSTALL_VERSION:
		if (str_to_u64(optarg, 3, &o->version) && o->version)
			return 0;
		return cli_usage(CMD_INSTALL, "--version is 1 (sandbox) or 2 (microVM)");
	case OPT_INSTALL_VHD_SIZE:
		if (str_to_bytes(optarg, &o->disk_bytes) && o->disk_bytes)
			return 0;
		return cli_usage(CMD_INSTALL, "--vhd-size is a size, such as 512GB");
	default:
		return cli_usage(CMD_INSTALL, options_why());
	}
}

static int parse(int argc, char **argv, struct options *o)
{
	int id, ret;

	*o = (struct options){0};
	optind = 1;
	while ((id = options_next(CMD_INSTALL, "", argc, argv)) != OPTIONS_END)
		if ((ret = take_option(id, o)))
			return ret;
	if (optind < argc && !o->flavor)
		o->flavor = argv[optind++];
	if (optind < argc)
		return cli_usage(CMD_INSTALL, "too many names");
	if (o->file && o->flavor)
		return cli_usage(CMD_INSTALL,
				 "a distribution and --from-file can't be specified at same time");
	return 0;
}

/* What is to be made, of what. */
struct plan {
	struct source source;
	char title[160];
	char name[STR_MAX_NAME + 1];        /* as it is called where nobody says otherwise */
	const struct manifest_entry *entry; /* whose archive is still to be fetched; NULL: none */
};

static void plan_recipe(struct plan *plan, const struct recipe *recipe)
{
	plan->source = (struct source){.kind = SOURCE_RECIPE, .recipe = recipe};
	snprintf(plan->title, sizeof(plan->title), "%s", recipe->title);
	snprintf(plan->name, sizeof(plan->name), "%s", recipe->name);
}

/* The name of a file without what follows the first '.' behind it, and without what no name of a
 * distribution can have. */
static void name_of_file(const char *path, char *out, size_t size)
{
	static const char *const ends[] = {".wsl", ".tar", ".tgz", ".txz", ".tzst"};
	const char *slash = strrchr(path, '/');
	size_t n = 0;
	char *end;

	for (const char *c = slash ? slash + 1 : path; *c && n + 1 < size; c++) {
		char one[2] = {*c, '\0'};

		if (str_is_name(one) || (n && strchr("._-", *c)))
			out[n++] = *c;
	}
	out[n] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if ((end = strstr(out, ends[i])) && end > out)
			*end = '\0';
}

static int plan_file(struct plan *plan, const char *file, const char *name, struct pil_err *err)
{
	plan->source = (struct source){.kind = SOURCE_ARCHIVE, .path = str_printf("%s", file)};
	snprintf(plan->title, sizeof(plan->title), "%.150s", file);
	name_of_file(file, plan->name, sizeof(plan->name));
	if (name || str_is_name(plan->name))
		return 0;
	pil_err_hint(err, "--name NAME gives it one");
	return pil_err_say(err, EINVAL, "install '%s': it has no name", file);
}

/* The name as it stands in a list comes first; then pillion's own recipes, in any case. */
static int plan_flavor(struct plan *plan, const char *flavor, const struct catalog *catalog)
{
	const struct recipe *recipe = flavor ? recipe_find(flavor) : recipes_distro;

	if (recipe && (!flavor || !strcmp(recipe->name, flavor))) {
		plan_recipe(plan, recipe);
		return 0;
	}
	plan->entry = catalog_find(catalog, flavor);
	if (plan->entry) {
		plan->source.kind = SOURCE_ARCHIVE;
		snprintf(plan->title, sizeof(plan->title), "%s", plan->entry->friendly);
		snprintf(plan->name, sizeof(plan->name), "%s", plan->entry->name);
		return 0;
	}
	if (!recipe)
		return -ENOENT;
	plan_recipe(plan, recipe);
	return 0;
}

static int unknown_flavor(const struct catalog *catalog)
{
	fputs("pillion: There is no distribution with the supplied name.\n", stderr);
	offers_print(stderr, catalog);
	return EXIT_FAILURE;
}

/* As asked for, or as the config says, or the best that this host can do. */
int cli_choose_version(struct cli *cli, uint64_t *version, const struct config *config,
		       struct pil_err *err)
{
	const struct backend *backend;

	if (!*version)
		*version = config->default_version;
	backend = backend_choose(&cli->dirs, (unsigned)*version, err);
	if (!backend)
		return -ENOTSUP;
	*version = backend->version;
	return 0;
}

static int carry_out(struct cli *cli, struct plan *plan, const struct options *o,
		     struct config *config, struct pil_err *err)
{
	uint64_t version = o->version;
	struct install i = {.name = o->name ? o->name : plan->name,
			    .flavor = plan->name,
			    .location = o->location,
			    .make = source_make,
			    .source = &plan->source,
			    .dirs = &cli->dirs,
			    .config = config};
	int ret = install_check_name(&cli->dirs, i.name, err);

	if (!ret)
		ret = cli_choose_version(cli, &version, config, err);
	if (ret)
		return ret;
	if (o->disk_bytes)
		config->default_disk_bytes = o->disk_bytes;
	if (plan->entry && !(plan->source.path = catalog_fetch(&cli->dirs, plan->entry, err)))
		return -EIO;
	i.version = (unsigned)version;
	fprintf(stderr, "Installing: %s\n", plan->title);
	return install_distro(&i, err);
}

static int install(struct cli *cli, const struct options *o, struct config *config, char *name)
{
	struct plan plan = {0};
	struct catalog catalog = {0};
	struct pil_err err = {0};
	bool known = true;
	int ret = 0;

	if (!o->file && !(o->flavor ? offers_is_recipe(o->flavor) : true))
		ret = catalog_load(&catalog, &cli->dirs, config, &err);
	if (!ret && o->file)
		ret = plan_file(&plan, o->file, o->name, &err);
	else if (!ret)
		known = plan_flavor(&plan, o->flavor, &catalog) == 0;
	if (!ret && known)
		ret = carry_out(cli, &plan, o, config, &err);
	snprintf(name, STR_MAX_NAME + 1, "%s", o->name ? o->name : plan.name);
	if (ret)
		ret = cli_fail(&err);
	else if (!known)
		ret = unknown_flavor(&catalog);
	source_finish(&plan.source);
	catalog_finish(&catalog);
	return ret;
}

int cmd_install(struct cli *cli, int argc, char **argv)
{
	_auto_free char *path = str_printf("%s/config", cli->dirs.config);
	char name[STR_MAX_NAME + 1];
	struct config config;
	struct pil_err err = {0};
	struct options o;
	int ret = parse(argc, argv, &o);

	if (ret)
		return ret;
	if (o.no_distribution)
		return cmd_update_kits(cli, KIT_THERE);
	if (config_load(&config, path, &err))
		return cli_fail(&err);
	ret = install(cli, &o, &config, name);
	config_finish(&config);
	if (ret)
		return ret;
	printf("Distribution successfully installed. It can be launched via 'pillion -d %s'\n",
	       name);
	fflush(stdout);
	if (o.no_launch || !isatty(STDIN_FILENO))
		return 0;
	return cmd_run(cli, 3, (char *[]){(char *)"pillion", (char *)"-d", name, NULL});
}
