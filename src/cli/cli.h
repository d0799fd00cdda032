/* SPDX-License-Identifier: Apache-2.0
 *
 * cli.h -- the command line: one file per command, one table (main.c).
 *
 * A command returns the exit status.  Errors go through cli_fail(), which prints one line and one
 * hint; a command that is asked for help or misused goes through cli_usage(). */
#ifndef PIL_CLI_H
#define PIL_CLI_H

#include "compiler.h"
#include "err.h"
#include "kit.h"
#include "state.h"

struct cli {
	struct state_dirs dirs;
};

struct cmd {
	const char *name;  /* "--install", or a word: "bench" */
	const char *alias; /* "-l"; NULL: none */
	const char *usage; /* the rest of the line, for --help and errors */
	const char *help;  /* one line; NULL: hidden */
	int (*run)(struct cli *cli, int argc, char **argv); /* argv[0] is the command itself */
};

extern const struct cmd cmd_bench, cmd_help, cmd_install, cmd_list, cmd_manage, cmd_set_default,
	cmd_set_version, cmd_shutdown, cmd_status, cmd_terminate, cmd_unregister, cmd_update,
	cmd_version;
extern const struct cmd *const cmd_all[]; /* alphabetical, NULL-terminated */

/* No command of the table: a program or a shell in a machine. */
int cmd_run(struct cli *cli, int argc, char **argv);

/* --update; --install --no-distribution */
int cmd_update_kits(struct cli *cli, enum kit_wish wish);

int cli_fail(const struct pil_err *err);               /* prints, returns 1; 130 for EINTR */
int cli_usage(const struct cmd *cmd, const char *why); /* prints, returns 1 */

/* wsl flags that mean nothing on this host: says so in a line, so that scripts go on. */
void cli_ignored(const char *flag); /* without its dashes */

#endif
