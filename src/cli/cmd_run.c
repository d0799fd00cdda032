/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attach.h"
#include "cli.h"
#include "fd.h"
#include "machine.h"
#include "registry.h"
#include "str.h"

struct options {
	const char *distro, *user, *cwd;
	bool exec; /* no shell around the command */
	bool login;
	char **command; /* NULL-terminated; empty: a shell */
};

static const struct {
	const char *name, *alias;
	size_t offset;
} text_options[] = {
	{"--distribution", "-d", offsetof(struct options, distro)},
	{"--user", "-u", offsetof(struct options, user)},
	{"--cd", NULL, offsetof(struct options, cwd)},
};

static const char *missing_value(const char *option)
{
	static char text[64];

	snprintf(text, sizeof(text), "%.40s needs a value", option);
	return text;
}

/* wsl's own rules: options until the first word that is none; -e takes all that follows. */
static const char *parse(int argc, char **argv, struct options *o)
{
	int i = 1;

	*o = (struct options){0};
	for (; i < argc && argv[i][0] == '-'; i++) {
		bool known = false;

		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		if (!strcmp(argv[i], "-e") || !strcmp(argv[i], "--exec")) {
			o->exec = true;
			i++;
			break;
		}
		for (size_t k = 0; k < ARRAY_SIZE(text_options); k++) {
			if (strcmp(argv[i], text_options[k].name) &&
			    (!text_options[k].alias || strcmp(argv[i], text_options[k].alias)))
				continue;
			if (++i == argc)
				return missing_value(argv[i - 1]);
			memcpy((char *)o + text_options[k].offset, &argv[i], sizeof(char *));
			known = true;
			break;
		}
		if (known)
			continue;
		if (!strcmp(argv[i], "--shell-type") && i + 1 < argc) {
			i++;
			o->exec = !strcmp(argv[i], "none");
			o->login = !strcmp(argv[i], "login");
			if (!o->exec && !o->login && strcmp(argv[i], "standard"))
				return argv[i];
		} else {
			return argv[i];
		}
	}
	if (o->exec && i == argc)
		return "--exec needs a command";
	o->command = argv + i;
	return NULL;
}

/* What a terminal program wants to know of the outside. */
static void collect_env(char **out, size_t max)
{
	static const char *const passed[] = {"TERM", "COLORTERM", "LANG", "LC_ALL"};
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(passed) && n + 1 < max; i++)
		if (getenv(passed[i]))
			out[n++] = str_printf("%s=%s", passed[i], getenv(passed[i]));
	out[n] = NULL;
}

static int run_in(struct cli *cli, const char *distro, const struct options *o, struct pil_err *err)
{
	char *env[8];
	struct attach_opts attach = {
		.user = o->user,
		.cwd = o->cwd,
		.args = (const char *const *)o->command,
		.env = (const char *const *)env,
		.shell = !o->exec,
		.login = o->login || !o->command[0],
		.tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO),
		.stdin_fd = STDIN_FILENO,
		.stdout_fd = STDOUT_FILENO,
		.stderr_fd = STDERR_FILENO,
	};
	int ret = -EAGAIN;

	collect_env(env, ARRAY_SIZE(env));
	for (int try = 0; ret == -EAGAIN && try < 3; try++) {
		int fd = machine_connect(&cli->dirs, distro, err);

		ret = fd < 0 ? fd : machine_attach(fd, &attach, err);
	}
	if (ret == -ECONNRESET)
		machine_explain_end(&cli->dirs, distro, true, err);
	for (size_t i = 0; env[i]; i++)
		free(env[i]);
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
