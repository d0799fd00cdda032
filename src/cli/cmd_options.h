/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_options.h -- the commands and their options, as options.def lists them. */
#ifndef PIL_CMD_OPTIONS_H
#define PIL_CMD_OPTIONS_H

#include <stdio.h>

struct cli;

#define OPT(...)
#define CMD(id, ...) CMD_##id,
enum cmd_id {
#include "cli/options.def"
	CMD_NUM
};
#undef CMD
#undef OPT

#define CMD(...)
#define OPT(cmd, id, ...) OPT_##cmd##_##id,
enum option_id {
#include "cli/options.def"
	OPT_NUM
};
#undef OPT
#undef CMD

enum option_kind { OPTION_PLAIN, OPTION_REQUIRED, OPTION_ONE_OF, OPTION_IGNORED, OPTION_HIDDEN };

struct cmd {
	const char *name;     /* "--install", or a word: "bench"; "": cmd_run() */
	const char *alias;    /* "-l"; NULL: none */
	const char *operands; /* "<Distro> <1|2>"; "": none */
	const char *help;     /* one line; NULL: it has no line in --help */
	int (*run)(struct cli *cli, int argc, char **argv); /* argv[0] is the command itself */
};

struct cmd_option {
	enum cmd_id cmd;
	const char *name; /* without its dashes */
	char letter;      /* 0: none */
	const char
		*argument; /* "<Name>"; "[Key]": may be left out, and is not getopt's; NULL: none */
	enum option_kind kind;
	const char *help; /* one line; NULL for those without a meaning here */
};

extern const struct cmd options_cmds[CMD_NUM];
extern const struct cmd_option options_all[OPT_NUM];

/* The next option of @cmd, as getopt_long() finds it (optind and optarg are its own).
 * @mode is "", or "+": options end at the first word that is none.  Says so where one is ignored.
 * An enum option_id; or: */
enum { OPTIONS_END = -1, OPTIONS_WRONG = -2 };
int options_next(enum cmd_id cmd, const char *mode, int argc, char **argv);
const char *options_why(void); /* OPTIONS_WRONG; valid until the next one */

void options_print_usage(FILE *out, enum cmd_id cmd); /* what follows its name; no new line */

#endif
