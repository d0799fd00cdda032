/* SPDX-License-Identifier: Apache-2.0
 *
 * cli.h -- the command line: one file per command, one table (options.def).
 *
 * A command returns the exit status.  Errors go through cli_fail(), which prints one line and one
 * hint; a command that is asked for help or misused goes through cli_usage(). */
#ifndef PIL_CLI_H
#define PIL_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "cli/cmd_options.h"
#include "config/state.h"
#include "kit/kit.h"

struct cli {
	struct state_dirs dirs;
};

/* One per command; cmd_run() is for what is no command: a program or a shell in a machine. */
#define OPT(...)
#define CMD(id, function, ...) int cmd_##function(struct cli *cli, int argc, char **argv);
#include "cli/options.def"
#undef CMD
#undef OPT

struct config;

/* Which version a new distribution has: as @version says, or 0 as the config does, or the best that
 * this host can do. */
int cli_choose_version(struct cli *cli, uint64_t *version, const struct config *config,
		       struct pil_err *err) PIL_MUST_CHECK;

/* Says to other commands what is done to @distro, for which its machine must not run. -EBUSY. */
struct distro;
int cli_claim_stopped(struct cli *cli, int lock_fd, const char *state, const struct distro *distro,
		      struct pil_err *err) PIL_MUST_CHECK;

/* --list --snapshots */
int cli_list_snapshots(struct cli *cli, bool json);

/* Is it a copy that --rm has made?  The file's name in its folder. */
#define CLI_THROWAWAY "throwaway"
bool cli_is_throwaway(struct cli *cli, const char *name);

/* --update; --install --no-distribution */
int cmd_update_kits(struct cli *cli, enum kit_wish wish);

int cli_fail(const struct pil_err *err);         /* prints, returns 1; 130 for EINTR */
int cli_usage(enum cmd_id cmd, const char *why); /* prints, returns 1 */

/* wsl flags that mean nothing on this host: says so in a line, so that scripts go on. */
void cli_ignored(const char *flag); /* without its dashes */

#endif
