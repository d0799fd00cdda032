/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cli.h"
#include "fd.h"
#include "machine.h"
#include "recipe.h"
#include "registry.h"

struct options {
	bool running, quiet, verbose, online, json;
};

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"all", no_argument, NULL, 'a'},
		{"running", no_argument, NULL, 'r'},
		{"quiet", no_argument, NULL, 'q'},
		{"verbose", no_argument, NULL, 'v'},
		{"online", no_argument, NULL, 'o'},
		{"json", no_argument, NULL, 'j'},
		{0},
	};
	int c;

	*o = (struct options){0};
	optind = 1;
	while ((c = getopt_long(argc, argv, "qvo", options, NULL)) != -1) {
		switch (c) {
		case 'a':
			break;
		case 'r':
			o->running = true;
			break;
		case 'q':
			o->quiet = true;
			break;
		case 'v':
			o->verbose = true;
			break;
		case 'o':
			o->online = true;
			break;
		case 'j':
			o->json = true;
			break;
		default:
			return cli_usage(&cmd_list, NULL);
		}
	}
	return optind < argc ? cli_usage(&cmd_list, "it takes no names") : 0;
}

static int list_online(void)
{
	puts("The following is a list of valid distributions that can be installed.\n"
	     "Install using 'pillion --install <Distro>'.\n");
	printf("%-16s%s\n", "NAME", "FRIENDLY NAME");
	for (const struct recipe *r = recipes_distro; r->name; r++)
		printf("%-16s%s\n", r->name, r->title);
	return 0;
}

static int print_json(struct cli *cli, const struct distro *list, int n, const char *default_name,
		      const struct options *o)
{
	json_t *array = json_array();

	for (int i = 0; i < n; i++) {
		bool running = machine_running(&cli->dirs, list[i].name);

		if (o->running && !running)
			continue;
		json_array_append_new(array,
				      json_pack("{s:s, s:b, s:s, s:i}", "name", list[i].name,
						"default", !strcmp(list[i].name, default_name),
						"state", running ? "Running" : "Stopped", "version",
						(int)list[i].version));
	}
	json_dumpf(array, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(array);
	return 0;
}

static int print_text(struct cli *cli, const struct distro *list, int n, const char *default_name,
		      const struct options *o)
{
	int width = 4, shown = 0;

	for (int i = 0; i < n; i++)
		if ((int)strlen(list[i].name) > width)
			width = (int)strlen(list[i].name);
	for (int i = 0; i < n; i++) {
		bool running = machine_running(&cli->dirs, list[i].name);
		bool is_default = !strcmp(list[i].name, default_name);

		if (o->running && !running)
			continue;
		if (shown++ == 0 && !o->quiet) {
			if (o->verbose)
				printf("  %-*s    %-15s %s\n", width, "NAME", "STATE", "VERSION");
			else
				puts("pillion Distributions:");
		}
		if (o->quiet)
			puts(list[i].name);
		else if (o->verbose)
			printf("%s %-*s    %-15s %u\n", is_default ? "*" : " ", width, list[i].name,
			       running ? "Running" : "Stopped", list[i].version);
		else
			printf("%s%s\n", list[i].name, is_default ? " (Default)" : "");
	}
	if (o->running && !shown && !o->quiet) {
		puts("There are no running distributions.");
		return EXIT_FAILURE;
	}
	return 0;
}

static int run(struct cli *cli, int argc, char **argv)
{
	_auto_free struct distro *list = NULL;
	struct distro def = {0};
	struct pil_err err = {0};
	struct options o;
	int n = parse(argc, argv, &o);

	if (n)
		return n;
	if (o.online)
		return list_online();
	n = registry_list(&cli->dirs, &list, &err);
	if (n < 0)
		return cli_fail(&err);
	if (registry_default(&cli->dirs, &def, &err) && !o.json && !o.quiet)
		return cli_fail(&err);
	return o.json ? print_json(cli, list, n, def.name, &o)
		      : print_text(cli, list, n, def.name, &o);
}

const struct cmd cmd_list = {
	"--list", "-l", "[--all] [--running] [--quiet, -q] [--verbose, -v] [--online, -o] [--json]",
	"Lists distributions.", run};
