/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --list: the installed distributions, those that can be installed, and the one that
 * another command is installing or removing at the moment. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/offers.h"
#include "config/config.h"
#include "config/registry.h"
#include "config/work.h"
#include "machine/machine.h"
#include "tree/catalog.h"

struct options {
	bool all, running, quiet, verbose, online, snapshots, json;
};

static int parse(int argc, char **argv, struct options *o)
{
	int id;

	*o = (struct options){0};
	optind = 1;
	while ((id = options_next(CMD_LIST, "", argc, argv)) != OPTIONS_END) {
		if (id == OPT_LIST_RUNNING)
			o->running = true;
		else if (id == OPT_LIST_QUIET)
			o->quiet = true;
		else if (id == OPT_LIST_VERBOSE)
			o->verbose = true;
		else if (id == OPT_LIST_ONLINE)
			o->online = true;
		else if (id == OPT_LIST_SNAPSHOTS)
			o->snapshots = true;
		else if (id == OPT_LIST_ALL)
			o->all = true;
		else if (id == OPT_LIST_JSON)
			o->json = true;
		else
			return cli_usage(CMD_LIST, options_why());
	}
	return optind < argc ? cli_usage(CMD_LIST, "it takes no names") : 0;
}

static int list_online(struct cli *cli, const struct options *o)
{
	_auto_free char *path = str_printf("%s/config", cli->dirs.config);
	struct catalog catalog;
	struct config config;
	struct pil_err err = {0};
	int ret = config_load(&config, path, &err);

	if (ret)
		return cli_fail(&err);
	ret = catalog_load(&catalog, &cli->dirs, &config, &err);
	config_finish(&config);
	if (ret)
		return cli_fail(&err);
	if (o->json)
		offers_print_json(stdout, &catalog);
	else
		offers_print(stdout, &catalog);
	catalog_finish(&catalog);
	return 0;
}

struct row {
	const char *name, *state;
	unsigned version;
	bool is_default;
	bool throwaway; /* of --rm: with --all alone */
};

static const char *state_of(struct cli *cli, const char *name, const struct work *work)
{
	if (!strcmp(name, work->name))
		return work->state;
	return machine_running(&cli->dirs, name) ? "Running" : "Stopped";
}

/* The installed ones, and the one that is not yet or not any more; returns how many. */
static int make_rows(struct cli *cli, const struct distro *list, int n, const char *default_name,
		     const struct work *work, struct row *rows)
{
	bool listed = !work->name[0];

	for (int i = 0; i < n; i++) {
		rows[i] = (struct row){.name = list[i].name,
				       .state = state_of(cli, list[i].name, work),
				       .version = list[i].version,
				       .throwaway = cli_is_throwaway(cli, list[i].name),
				       .is_default = !strcmp(list[i].name, default_name)};
		listed = listed || !strcmp(list[i].name, work->name);
	}
	if (!listed)
		rows[n++] = (struct row){.name = work->name,
					 .state = work->state,
					 .version = work->version};
	return n;
}

static bool shown(const struct row *row, const struct options *o)
{
	return (o->all || !row->throwaway) && (!o->running || !strcmp(row->state, "Running"));
}

static int print_json(const struct row *rows, int n, const struct options *o)
{
	json_t *array = json_array();

	for (int i = 0; i < n; i++)
		if (shown(&rows[i], o))
			json_array_append_new(array,
					      json_pack("{s:s, s:b, s:s, s:i}", "name",
							rows[i].name, "default", rows[i].is_default,
							"state", rows[i].state, "version",
							(int)rows[i].version));
	json_dumpf(array, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(array);
	return 0;
}

static int print_text(const struct row *rows, int n, const struct options *o)
{
	int width = 4, n_shown = 0;

	for (int i = 0; i < n; i++)
		if ((int)strlen(rows[i].name) > width)
			width = (int)strlen(rows[i].name);
	for (int i = 0; i < n; i++) {
		const struct row *r = &rows[i];

		if (!shown(r, o))
			continue;
		if (n_shown++ == 0 && !o->quiet) {
			if (o->verbose)
				printf("  %-*s    %-15s %s\n", width, "NAME", "STATE", "VERSION");
			else
				puts("pillion Distributions:");
		}
		if (o->quiet)
			puts(r->name);
		else if (o->verbose)
			printf("%s %-*s    %-15s %u\n", r->is_default ? "*" : " ", width, r->name,
			       r->state, r->version);
		else
			printf("%s%s\n", r->name, r->is_default ? " (Default)" : "");
	}
	if (o->running && !n_shown && !o->quiet) {
		puts("There are no running distributions.");
		return EXIT_FAILURE;
	}
	return 0;
}

int cmd_list(struct cli *cli, int argc, char **argv)
{
	_auto_free struct distro *list = NULL;
	_auto_free struct row *rows = NULL;
	_auto_free char *lock = registry_lock_path(&cli->dirs);
	struct work work = {0};
	struct distro def = {0};
	struct pil_err err = {0};
	struct options o;
	int n = parse(argc, argv, &o);

	if (n)
		return n;
	if (o.snapshots)
		return cli_list_snapshots(cli, o.json);
	if (o.online)
		return list_online(cli, &o);
	if (!work_find(lock, &work))
		work = (struct work){0};
	n = registry_list(&cli->dirs, &list, &err);
	if (n < 0)
		return cli_fail(&err);
	if (registry_default(&cli->dirs, &def, &err) && !work.name[0] && !o.json && !o.quiet)
		return cli_fail(&err);
	rows = calloc((size_t)n + 1, sizeof(*rows));
	if (!rows)
		return EXIT_FAILURE;
	n = make_rows(cli, list, n, def.name, &work, rows);
	return o.json ? print_json(rows, n, &o) : print_text(rows, n, &o);
}
