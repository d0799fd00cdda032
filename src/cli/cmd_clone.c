/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --clone NAME NEW: another distribution with the same files; --rm: a copy that is gone
 * after one command.
 *
 * Theory of operation of --rm: the copy is a distribution like any, but for the file THROWAWAY in
 * its folder, which the command holds locked.  A child runs the command; we wait, whatever signal
 * comes, and remove the copy.  If we are killed ourselves, the lock is free, and the next such
 * command removes what is left. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/registry.h"
#include "disk/copies.h"
#include "disk/install.h"
#include "machine/freeze.h"
#include "machine/machine.h"
#include "tree/tree.h"

struct clone {
	struct distro from;
	bool throwaway;
	int throwaway_fd; /* its lock, once it is made */
};

/* Makes the mark of a copy that nobody wants once we are gone. */
static int make_throwaway(const char *dir, int *fd, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/" CLI_THROWAWAY, dir);

	*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return *fd < 0 || flock(*fd, LOCK_EX | LOCK_NB) ? pil_err_set(err, errno, "make '%s'", path)
							: 0;
}

/* install.h's .make */
static int copy(const struct install *i, const char *dir, struct distro *distro,
		struct pil_err *err)
{
	struct clone *c = (struct clone *)(uintptr_t)i->source;
	_auto_free char *from = str_printf("%s/distros/%s", i->dirs->data, c->from.name);
	struct freeze freeze;
	int ret = freeze_begin(&freeze, i->dirs, c->from.name, err);

	if (ret)
		return ret;
	ret = c->throwaway ? make_throwaway(dir, &c->throwaway_fd, err) : 0;
	if (!ret)
		ret = copies_copy_form(from, dir, c->from.version, freeze.thawer > 0, err);
	freeze_end(&freeze);
	if (!ret)
		ret = copies_copy_notes(from, dir, err);
	distro->version = c->from.version;
	distro->default_uid = c->from.default_uid;
	return ret;
}

static int clone(struct cli *cli, struct clone *c, const char *name, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/config", cli->dirs.config);
	struct config config;
	struct install i = {.name = name,
			    .flavor = c->from.flavor,
			    .version = c->from.version,
			    .make = copy,
			    .source = c,
			    .dirs = &cli->dirs,
			    .config = &config};
	int ret = config_load(&config, path, err);

	if (ret)
		return ret;
	ret = install_check_name(&cli->dirs, name, err);
	if (!ret)
		ret = install_distro(&i, err);
	config_finish(&config);
	return ret;
}

int cmd_clone(struct cli *cli, int argc, char **argv)
{
	struct clone c = {.throwaway_fd = -1};
	struct pil_err err = {0};

	if (argc != 3)
		return cli_usage(CMD_CLONE, "a distribution and a new name are needed");
	if (registry_find(&cli->dirs, argv[1], &c.from, &err) || clone(cli, &c, argv[2], &err))
		return cli_fail(&err);
	puts("The operation completed successfully.");
	return EXIT_SUCCESS;
}

/* ---- throw-away copies ---- */

static int forget(struct cli *cli, const char *name, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/distros/%s", cli->dirs.data, name);
	_auto_fd int lock_fd = registry_lock(&cli->dirs, err);
	int ret = lock_fd < 0 ? lock_fd : machine_stop(&cli->dirs, name, true, err);

	if (!ret)
		ret = registry_remove(&cli->dirs, name, err);
	return ret ? ret : tree_remove(dir, err);
}

bool cli_is_throwaway(struct cli *cli, const char *name)
{
	_auto_free char *path = str_printf("%s/distros/%s/" CLI_THROWAWAY, cli->dirs.data, name);

	return path_exists(path);
}

/* Removes those whose commands were killed. */
static void sweep(struct cli *cli)
{
	_auto_free struct distro *list = NULL;
	int n = registry_list(&cli->dirs, &list, NULL);

	for (int i = 0; i < n; i++) {
		_auto_free char *path =
			str_printf("%s/distros/%s/" CLI_THROWAWAY, cli->dirs.data, list[i].name);
		_auto_fd int fd = open(path, O_RDWR | O_CLOEXEC);
		struct pil_err err = {0};

		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && forget(cli, list[i].name, &err))
			log_warn("%s", err.msg);
	}
}

static volatile sig_atomic_t child;

/* A terminal has told the child, too. */
static void pass_on(int sig)
{
	if (child > 0 && sig != SIGINT)
		kill(child, sig);
}

/* Runs the command in the copy: its status. */
static int run_in_copy(struct cli *cli, const char *name, char **words)
{
	struct sigaction action = {.sa_handler = pass_on};
	char *head[] = {(char *)"pillion", (char *)"-d", (char *)name, NULL};
	struct argv a = {0};
	int status = 0;

	argv_add_all(&a, (const char *const *)head);
	argv_add_all(&a, (const char *const *)words);
	fflush(NULL);
	child = fork();
	if (child == 0)
		exit(cmd_run(cli, (int)a.n, a.v));
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		continue;
	argv_finish(&a);
	if (child < 0)
		return EXIT_FAILURE;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int cmd_rm(struct cli *cli, int argc, char **argv)
{
	bool named = argc > 2 && (!strcmp(argv[1], "-d") || !strcmp(argv[1], "--distribution"));
	struct clone c = {.throwaway = true, .throwaway_fd = -1};
	char name[STR_MAX_NAME + 1];
	struct pil_err err = {0};
	int status;

	if (named ? registry_find(&cli->dirs, argv[2], &c.from, &err)
		  : registry_default(&cli->dirs, &c.from, &err))
		return cli_fail(&err);
	sweep(cli);
	snprintf(name, sizeof(name), "%.40s-rm-%d", c.from.name, (int)getpid());
	if (clone(cli, &c, name, &err))
		return cli_fail(&err);
	status = run_in_copy(cli, name, argv + (named ? 3 : 1));
	if (forget(cli, name, &err))
		cli_fail(&err);
	pil_close_p(&c.throwaway_fd);
	return status;
}
