/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --manage NAME --set KEY=VALUE [--set ...] | --unset KEY | --get [KEY] [--json]; and
 * --move, --resize, --set-default-user, ..., which manage.c does.
 *
 * Settings of one machine, in distros/NAME/machine.conf.  What is written has been read back first,
 * so that a machine never meets a file that it cannot use. */
#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/manage.h"
#include "config/config.h"
#include "config/config_keys.h"
#include "config/registry.h"
#include "machine/machine.h"

enum { MAX_CHANGES = 16, MAX_FILE_BYTES = 64 << 10 };

enum action { NOTHING, SET, UNSET, GET, CHANGE };

struct request {
	enum action action;
	const struct config_key *key;    /* NULL: --get of all */
	const char *values[MAX_CHANGES]; /* of --set, all for the one key */
	int n_values;
	bool json;
	enum option_id change; /* of CHANGE: one of --move, --resize, ... */
	const char *argument;
};

/* "KEY=VALUE".  Several at once are several values of one key. */
static int add_value(struct request *r, char *text, struct pil_err *err)
{
	char *equals = strchr(text, '=');
	const struct config_key *key;

	if (!equals || strchr(equals, '\n'))
		return pil_err_say(err, EINVAL, "--set takes KEY=VALUE, in one line");
	*equals = '\0';
	key = config_key_find(text, err);
	if (!key)
		return -ENOENT;
	if (r->n_values && (key != r->key || !key->clear))
		return pil_err_say(err, EINVAL, "%s: one value of one key at a time", key->name);
	if (r->n_values == MAX_CHANGES)
		return pil_err_say(err, EINVAL, "at most %d values", MAX_CHANGES);
	r->key = key;
	r->values[r->n_values++] = equals + 1;
	return config_key_check(key, equals + 1, err);
}

static int set_action(struct request *r, enum action action, struct pil_err *err)
{
	if (r->action != NOTHING && (r->action != SET || action != SET))
		return pil_err_say(err, EINVAL, "one thing at a time");
	r->action = action;
	return 0;
}

static int set_change(struct request *r, enum option_id id, struct pil_err *err)
{
	r->change = id;
	r->argument = optarg;
	return set_action(r, CHANGE, err);
}

static int parse(struct request *r, int argc, char **argv, struct pil_err *err)
{
	int id, ret = 0;

	optind = 1;
	while (!ret && (id = options_next(CMD_MANAGE, "+", argc, argv)) != OPTIONS_END) {
		if (id == OPTIONS_WRONG)
			ret = pil_err_say(err, EINVAL, "%s", options_why());
		else if (id == OPT_MANAGE_JSON)
			r->json = true;
		else if (id == OPT_MANAGE_ALLOW_UNSAFE) /* nothing here is */
			continue;
		else if (id != OPT_MANAGE_SET && id != OPT_MANAGE_UNSET && id != OPT_MANAGE_GET)
			ret = set_change(r, (enum option_id)id, err);
		else
			ret = set_action(r,
					 id == OPT_MANAGE_SET     ? SET
					 : id == OPT_MANAGE_UNSET ? UNSET
								  : GET,
					 err);
		if (!ret && id == OPT_MANAGE_SET)
			ret = add_value(r, optarg, err);
		if (!ret && id == OPT_MANAGE_UNSET && !(r->key = config_key_find(optarg, err)))
			ret = -ENOENT;
		if (!ret && id == OPT_MANAGE_GET && optind < argc && argv[optind][0] != '-' &&
		    !(r->key = config_key_find(argv[optind++], err)))
			ret = -ENOENT;
	}
	if (!ret && optind < argc)
		ret = pil_err_say(err, EINVAL, "what is '%s'?", argv[optind]);
	if (!ret && r->action == NOTHING)
		ret = pil_err_say(err, EINVAL, "nothing to do");
	return ret;
}

/* ---- set, unset ---- */

static int change(struct cli *cli, const char *distro, const struct request *r, struct pil_err *err)
{
	_auto_free char *path = config_machine_path(&cli->dirs, distro);
	_auto_free char *lock_path = str_printf("%s.lock", path);

	return config_text_change(path, lock_path, r->key, r->values, r->n_values,
				  config_check_machine, err);
}

static void say_when(struct cli *cli, const char *distro, const struct config_key *key)
{
	assert(key); /* what is set or unset has been looked up */
	if (!strcmp(key->section, "accel"))
		fprintf(stderr, "pillion: %s holds for programs that start from now on\n",
			key->name);
	else if (machine_running(&cli->dirs, distro))
		fprintf(stderr,
			"pillion: %s holds from the next start of '%s'\nhint: pillion --terminate "
			"%s\n",
			key->name, distro, distro);
}

/* ---- get ---- */

struct files {
	char *machine, *user; /* their text; NULL: not there */
};

static void read_files(struct cli *cli, const char *distro, struct files *f)
{
	_auto_free char *own = config_machine_path(&cli->dirs, distro);
	_auto_free char *user = str_printf("%s/config", cli->dirs.config);

	*f = (struct files){0};
	if (pil_read_file(own, MAX_FILE_BYTES, &f->machine) < 0)
		f->machine = NULL;
	if (pil_read_file(user, MAX_FILE_BYTES, &f->user) < 0)
		f->user = NULL;
}

/* The value as somebody wrote it, and who; heap. */
static char *value_of(const struct files *f, const struct config_key *key, const char **from)
{
	char *value = f->machine ? config_text_get(f->machine, key) : NULL;

	*from = "machine";
	if (!value && f->user) {
		value = config_text_get(f->user, key);
		*from = "config";
	}
	if (value)
		return value;
	*from = "default";
	return str_printf("%s", key->normal);
}

static int print_all(const struct files *f, bool json)
{
	json_auto_t *list = json_array();

	for (int i = 0; i < config_num_keys; i++) {
		const struct config_key *key = &config_keys[i];
		_auto_free char *name = str_printf("%s.%s", key->section, key->name);
		_auto_free char *value = NULL;
		const char *from;

		if (!key->of_machine)
			continue;
		value = value_of(f, key, &from);
		for (char *c = value; !json && *c; c++)
			*c = *c == '\n' ? ',' : *c;
		if (json)
			json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "key", name,
							      "value", value, "from", from));
		else
			printf("%-34s %-10s %s\n", name, from, value);
	}
	if (json && json_dumpf(list, stdout, JSON_INDENT(2)))
		return EXIT_FAILURE;
	if (json)
		putchar('\n');
	return EXIT_SUCCESS;
}

static int get(struct cli *cli, const char *distro, const struct request *r)
{
	_auto_free char *value = NULL;
	struct files f;
	const char *from;
	int status = EXIT_SUCCESS;

	read_files(cli, distro, &f);
	if (r->key) {
		value = value_of(&f, r->key, &from);
		puts(value);
	} else {
		status = print_all(&f, r->json);
	}
	free(f.machine);
	free(f.user);
	return status;
}

int cmd_manage(struct cli *cli, int argc, char **argv)
{
	struct request r = {0};
	struct distro distro;
	struct pil_err err = {0};

	if (argc < 2 || argv[1][0] == '-')
		return cli_usage(CMD_MANAGE, "one distribution is needed");
	if (registry_find(&cli->dirs, argv[1], &distro, &err))
		return cli_fail(&err);
	if (parse(&r, argc - 1, argv + 1, &err)) {
		if (!err.hint[0])
			pil_err_hint(&err, "pillion --manage --help shows what it takes");
		pil_err_prefix(&err, "manage '%s'", distro.name);
		return cli_fail(&err);
	}
	if (r.action == GET) {
		struct config config; /* what a machine could not use is not shown as if it held */

		if (config_load_machine(&config, &cli->dirs, distro.name, &err))
			return cli_fail(&err);
		config_finish(&config);
		return get(cli, distro.name, &r);
	}
	if (r.action == CHANGE ? manage_change(cli, distro.name, r.change, r.argument, &err)
			       : change(cli, distro.name, &r, &err)) {
		pil_err_prefix(&err, "manage '%s'", distro.name);
		return cli_fail(&err);
	}
	if (r.action != CHANGE)
		say_when(cli, distro.name, r.key);
	puts("The operation completed successfully.");
	return EXIT_SUCCESS;
}
