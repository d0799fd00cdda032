/* SPDX-License-Identifier: Apache-2.0 */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "log.h"

const struct cmd *const cmd_all[] = {
	&cmd_bench,  &cmd_help,      &cmd_install,    &cmd_list,   &cmd_set_default, &cmd_shutdown,
	&cmd_status, &cmd_terminate, &cmd_unregister, &cmd_update, &cmd_version,     NULL,
};

int cli_fail(const struct pil_err *err)
{
	fprintf(stderr, "pillion: %s\n", err->msg);
	if (err->hint[0])
		fprintf(stderr, "hint: %s\n", err->hint);
	return EXIT_FAILURE;
}

int cli_usage(const struct cmd *cmd, const char *why)
{
	if (why)
		fprintf(stderr, "pillion: %s: %s\n", cmd->name, why);
	fprintf(stderr, "usage: pillion %s %s\n", cmd->name, cmd->usage);
	return EXIT_FAILURE;
}

void cli_ignored(const char *flag)
{
	fprintf(stderr, "pillion: %s has no meaning on this host and is ignored\n", flag);
}

static const struct cmd *find_command(const char *word)
{
	for (const struct cmd *const *c = cmd_all; *c; c++)
		if (!strcmp(word, (*c)->name) || ((*c)->alias && !strcmp(word, (*c)->alias)))
			return *c;
	if (!strcmp(word, "--setdefault")) /* older spelling of wsl */
		return &cmd_set_default;
	return NULL;
}

int main(int argc, char **argv)
{
	const struct cmd *cmd = argc > 1 ? find_command(argv[1]) : NULL;
	struct cli cli = {0};
	struct pil_err err = {0};
	int status;

	log_init("pillion");
	setlocale(LC_CTYPE, "C.UTF-8"); /* tables hold signs beyond ASCII, whatever the locale */
	if (state_dirs_init(&cli.dirs, &err))
		return cli_fail(&err);
	status = cmd ? cmd->run(&cli, argc - 1, argv + 1) : cmd_run(&cli, argc, argv);
	state_dirs_finish(&cli.dirs);
	return status;
}
