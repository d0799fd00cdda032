/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion [OPTIONS] [COMMAND]: starts the machine if it does not run, and runs a command or a
 * shell in it.  A machine may end between the two; then both are tried again. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/exposed.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/registry.h"
#include "machine/attach.h"
#include "machine/ending.h"
#include "machine/machine.h"
#include "tree/archive.h"

struct options {
	const char *distro, *user, *cwd;
	bool exec; /* no shell around the command */
	bool login;
	char **command; /* NULL-terminated; empty: a shell */
};

/* OPT_NUM: @word is none. */
static enum option_id find_option(const char *word)
{
	for (int i = 0; i < OPT_NUM; i++) {
		const struct cmd_option *o = &options_all[i];
		bool is_letter = word[0] == '-' && word[1] && word[1] == o->letter && !word[2];

		if (o->cmd == CMD_RUN &&
		    (is_letter || (!strncmp(word, "--", 2) && !strcmp(word + 2, o->name))))
			return (enum option_id)i;
	}
	return OPT_NUM;
}

static const char *missing_value(const char *option)
{
	static char text[64];

	snprintf(text, sizeof(text), "%.40s needs a value", option);
	return text;
}

static bool set_shell_type(struct options *o, const char *type)
{
	o->exec = !strcmp(type, "none");
	o->login = !strcmp(type, "login");
	return o->exec || o->login || !strcmp(type, "standard");
}

/* wsl's own rules: options until the first word that is none; -e takes all that follows. */
static const char *parse(int argc, char **argv, struct options *o)
{
	int i = 1;

	*o = (struct options){0};
	for (; i < argc && argv[i][0] == '-'; i++) {
		enum option_id id = find_option(argv[i]);

		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		if (id == OPT_RUN_EXEC) {
			o->exec = true;
			i++;
			break;
		}
		if (id == OPT_NUM || (id == OPT_RUN_SHELL_TYPE && i + 1 == argc))
			return argv[i];
		if (++i == argc)
			return missing_value(argv[i - 1]);
		if (id == OPT_RUN_DISTRIBUTION)
			o->distro = argv[i];
		else if (id == OPT_RUN_USER)
			o->user = argv[i];
		else if (id == OPT_RUN_CD)
			o->cwd = argv[i];
		else if (!set_shell_type(o, argv[i]))
			return "--shell-type takes standard, login or none";
	}
	if (o->exec && i == argc)
		return "--exec needs a command";
	o->command = argv + i;
	return NULL;
}

/* What the container image says, where the distribution was made of one. */
static void load_told(struct cli *cli, const char *distro, struct archive_told *told)
{
	_auto_free char *path =
		str_printf("%s/distros/%s/" ARCHIVE_TOLD_NAME, cli->dirs.data, distro);

	*told = (struct archive_told){0};
	if (path_exists(path))
		archive_told_load(told, path);
}

/* Is @setting of a variable that says how the machine is made?  An image does not know that. */
static bool is_ours(const char *setting)
{
	static const char *const ours[] = {"PATH",    "HOME",  "USER",
					   "LOGNAME", "SHELL", "WSL_DISTRO_NAME"};
	size_t len = strcspn(setting, "=");

	for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
		if (strlen(ours[i]) == len && !strncmp(setting, ours[i], len))
			return true;
	for (size_t i = 0; i < EXPOSED_NUM; i++)
		if (strlen(exposed[i].variable) == len &&
		    !strncmp(setting, exposed[i].variable, len))
			return true;
	return false;
}

/* What a terminal program wants to know of the outside.  All of it gives way to what the machine
 * itself says, and to what it does not know. */
static void collect_env(char **out, size_t max, const struct archive_told *told)
{
	static const char *const passed[] = {"TERM", "COLORTERM", "LANG", "LC_ALL"};
	size_t n = 0;

	for (char *const *e = told->env; *e && n + 1 < max; e++)
		if (!is_ours(*e))
			out[n++] = str_printf("?%s", *e);
	for (size_t i = 0; i < ARRAY_SIZE(passed) && n + 1 < max; i++)
		if (getenv(passed[i]))
			out[n++] = str_printf("?%s=%s", passed[i], getenv(passed[i]));
	out[n] = NULL;
}

static int run_in(struct cli *cli, const char *distro, const struct options *o, struct pil_err *err)
{
	char *env[ARCHIVE_MAX_ENV + 8];
	struct archive_told told;
	struct attach_opts attach = {
		.user = o->user,
		.args = (const char *const *)o->command,
		.env = (const char *const *)env,
		.shell = !o->exec,
		.login = o->login || !o->command[0],
		.stdin_fd = STDIN_FILENO,
		.stdout_fd = STDOUT_FILENO,
		.stderr_fd = STDERR_FILENO,
	};
	_auto_free char *workdir = NULL;
	int ret = -EAGAIN;

	load_told(cli, distro, &told);
	workdir = str_printf("?%s", told.workdir ? told.workdir : "");
	attach.cwd = o->cwd ? o->cwd : told.workdir ? workdir : NULL;
	collect_env(env, ARRAY_SIZE(env), &told);
	for (int try = 0; ret == -EAGAIN && try < 3; try++) {
		int fd = machine_connect(&cli->dirs, distro, err);

		ret = fd < 0 ? fd : attach_run(fd, &attach, err);
	}
	if (ret == -ECONNRESET)
		ending_explain(&cli->dirs, distro, true, err);
	for (size_t i = 0; env[i]; i++)
		free(env[i]);
	archive_told_finish(&told);
	return ret;
}

int cmd_run(struct cli *cli, int argc, char **argv)
{
	struct distro distro;
	struct pil_err err = {0};
	struct options o;
	const char *wrong = parse(argc, argv, &o);
	int ret;

	if (wrong) {
		fprintf(stderr,
			"pillion: Invalid command line argument: %s\nPlease use 'pillion --help' "
			"to get a list of "
			"supported arguments.\n",
			wrong);
		return EXIT_FAILURE;
	}
	ret = o.distro ? registry_find(&cli->dirs, o.distro, &distro, &err)
		       : registry_default(&cli->dirs, &distro, &err);
	if (!ret)
		ret = run_in(cli, distro.name, &o, &err);
	return ret < 0 ? cli_fail(&err) : ret;
}
