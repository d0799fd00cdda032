/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables of options.def, and what is made of them while pillion runs: the tables of
 * getopt_long() and the usage lines. */
#include "cli/cmd_options.h"

#include <getopt.h>
#include <string.h>

#include "base/compiler.h"
#include "cli/cli.h"

enum { LONG_OPTION = 256 }; /* values of getopt_long(): above all letters */

#define OPT(...)
#define CMD(id, function, name, alias, operands, first, second, help)                              \
	[CMD_##id] = {name, alias, operands, help, cmd_##function},
const struct cmd options_cmds[CMD_NUM] = {
#include "cli/options.def"
};
#undef CMD
#undef OPT

#define CMD(...)
#define OPT(cmd, id, name, letter, argument, completion, kind, help)                               \
	[OPT_##cmd##_##id] = {CMD_##cmd, name, letter, argument, OPTION_##kind, help},
const struct cmd_option options_all[OPT_NUM] = {
#include "cli/options.def"
};
#undef OPT
#undef CMD

static bool takes_argument(const struct cmd_option *o)
{
	return o->argument && o->argument[0] != '[';
}

static int find_letter(enum cmd_id cmd, int letter)
{
	for (int i = 0; i < OPT_NUM; i++)
		if (options_all[i].cmd == cmd && options_all[i].letter == letter)
			return i;
	return OPTIONS_WRONG;
}

static char why[80];

const char *options_why(void)
{
	return why;
}

/* @found is what getopt_long() returned: ':' for an option without its value, else '?'.  It leaves
 * in optopt a letter, or what stands for a long option that it knows. */
static void note_why(int found, char **argv)
{
	const char *word = argv[optind - 1];

	if (found == ':')
		snprintf(why, sizeof(why), "%.40s needs a value", word);
	else if (optopt >= LONG_OPTION)
		snprintf(why, sizeof(why), "%.40s: it takes no value", word);
	else if (optopt)
		snprintf(why, sizeof(why), "unknown option -%c", optopt);
	else
		snprintf(why, sizeof(why), "unknown option %.40s", word);
}

int options_next(enum cmd_id cmd, const char *mode, int argc, char **argv)
{
	struct option longs[OPT_NUM + 1] = {0};
	char letters[2 * OPT_NUM + 4];
	size_t n = 0, at = strlen(strcpy(letters, mode));
	int found;

	letters[at++] = ':'; /* tells the two faults apart */

	for (int i = 0; i < OPT_NUM; i++) {
		const struct cmd_option *o = &options_all[i];

		if (o->cmd != cmd)
			continue;
		longs[n++] = (struct option){o->name,
					     takes_argument(o) ? required_argument : no_argument,
					     NULL, LONG_OPTION + i};
		if (o->letter)
			letters[at++] = o->letter;
		if (o->letter && takes_argument(o))
			letters[at++] = ':';
	}
	letters[at] = '\0';
	opterr = 0;
	do {
		found = getopt_long(argc, argv, letters, longs, NULL);
		if (found == -1)
			return OPTIONS_END;
		if (found == '?' || found == ':') {
			note_why(found, argv);
			return OPTIONS_WRONG;
		}
		found = found >= LONG_OPTION ? found - LONG_OPTION : find_letter(cmd, found);
		if (found >= 0 && options_all[found].kind == OPTION_IGNORED)
			cli_ignored(options_all[found].name);
	} while (found >= 0 && options_all[found].kind == OPTION_IGNORED);
	return found;
}

void options_print_usage(FILE *out, enum cmd_id cmd)
{
	const char *before = options_cmds[cmd].operands[0] ? " " : "";
	bool is_next = false; /* of several that exclude each other */

	fputs(options_cmds[cmd].operands, out);
	for (int i = 0; i < OPT_NUM; i++) {
		const struct cmd_option *o = &options_all[i];
		bool optional = o->kind == OPTION_PLAIN, one_of = o->kind == OPTION_ONE_OF;

		if (o->cmd != cmd || o->kind == OPTION_IGNORED || o->kind == OPTION_HIDDEN)
			continue;
		fprintf(out, "%s%s%s--%s", before, is_next && one_of ? "| " : "",
			optional ? "[" : "", o->name);
		if (o->letter)
			fprintf(out, ", -%c", o->letter);
		if (o->argument)
			fprintf(out, " %s", o->argument);
		fputs(optional ? "]" : "", out);
		is_next = one_of;
		before = " ";
	}
}
