/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line: finds the command in the table of options.def, or passes all words to
 * cmd_run().  It also names what wsl has and pillion has not. */
#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "cli/cli.h"

int cli_fail(const struct pil_err *err)
{
	char safe[2 * sizeof(err->msg)]; /* names of a guest's files may be in there */

	fprintf(stderr, "pillion: %s\n", str_escape_controls(safe, sizeof(safe), err->msg));
	if (err->hint[0])
		fprintf(stderr, "hint: %s\n", str_escape_controls(safe, sizeof(safe), err->hint));
	return err->code == EINTR ? 130 : EXIT_FAILURE; /* as a shell shows it */
}

static void print_usage(FILE *out, enum cmd_id cmd)
{
	fprintf(out, "usage: pillion %s ", options_cmds[cmd].name);
	options_print_usage(out, cmd);
	fputc('\n', out);
}

int cli_usage(enum cmd_id cmd, const char *why)
{
	if (why)
		fprintf(stderr, "pillion: %s: %s\n", options_cmds[cmd].name, why);
	print_usage(stderr, cmd);
	return EXIT_FAILURE;
}

/* `pillion COMMAND --help`. */
static int explain(enum cmd_id cmd)
{
	print_usage(stdout, cmd);
	puts(options_cmds[cmd].help);
	return EXIT_SUCCESS;
}

void cli_ignored(const char *flag)
{
	fprintf(stderr, "pillion: --%s has no meaning on this host and is ignored\n", flag);
}

/* What wsl has and pillion has not (yet), so that nobody takes it for a mistyped word. */
static const struct {
	const char *name, *instead;
} unsupported[] = {
	{"--debug-shell", "pillion -u root is a shell with all rights in the machine"},
	{"--distribution-id", "pillion -d NAME; distributions have names alone"},
	{"--mount", "mount it on the host; machines do not see the host's disks"},
	{"--system", "there is no system distribution; pillion -d NAME picks one of yours"},
	{"--unmount", "machines do not see the host's disks"},
};

static bool refuse_unsupported(const char *word)
{
	for (size_t i = 0; i < sizeof(unsupported) / sizeof(unsupported[0]); i++) {
		if (strcmp(word, unsupported[i].name) != 0)
			continue;
		fprintf(stderr,
			"pillion: %s is not supported by this version of pillion\nhint: %s\n", word,
			unsupported[i].instead);
		return true;
	}
	return false;
}

/* CMD_RUN: @word is no command. */
static enum cmd_id find_command(const char *word)
{
	for (int i = 0; i < CMD_NUM; i++) {
		const struct cmd *c = &options_cmds[i];

		if (i != CMD_RUN &&
		    (!strcmp(word, c->name) || (c->alias && !strcmp(word, c->alias))))
			return (enum cmd_id)i;
	}
	if (!strcmp(word, "--setdefault")) /* older spelling of wsl */
		return CMD_SET_DEFAULT;
	return CMD_RUN;
}

/* `pillion list` runs list in a machine.  If it is not there, --list may have been meant. */
static void hint_at_dashes(const char *word)
{
	_auto_free char *dashed = str_printf("--%s", word);

	if (find_command(dashed) != CMD_RUN)
		fprintf(stderr, "hint: pillion %s is a command of pillion\n", dashed);
}

int main(int argc, char **argv)
{
	enum cmd_id id = argc > 1 ? find_command(argv[1]) : CMD_RUN;
	const struct cmd *cmd = &options_cmds[id];
	struct cli cli = {0};
	struct pil_err err = {0};
	int status;

	log_init("pillion");
	setlocale(LC_CTYPE, "C.UTF-8"); /* tables hold signs beyond ASCII, whatever the locale */
	if (id == CMD_HELP || id == CMD_VERSION) /* must work where nothing else does */
		return cmd->run(&cli, argc - 1, argv + 1);
	if (id != CMD_RUN && argc == 3 && !strcmp(argv[2], "--help"))
		return explain(id);
	if (argc > 1 && id == CMD_RUN && refuse_unsupported(argv[1]))
		return EXIT_FAILURE;
	if (state_dirs_init(&cli.dirs, &err))
		return cli_fail(&err);
	if (id != CMD_RUN) {
		argc--;
		argv++;
	}
	status = cmd->run(&cli, argc, argv);
	if (id == CMD_RUN && status == 127 && argc > 1) /* a shell's "not found" */
		hint_at_dashes(argv[1]);
	state_dirs_finish(&cli.dirs);
	return status;
}
