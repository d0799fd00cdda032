/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --snapshot NAME [TAG]: keeps the files of a distribution as they are now; --restore NAME
 * TAG gives them back. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/registry.h"
#include "config/work.h"
#include "disk/copies.h"
#include "machine/freeze.h"
#include "machine/machine.h"

static int snapshot(struct cli *cli, const char *name, const char *tag, struct pil_err *err)
{
	_auto_fd int lock_fd = registry_lock(&cli->dirs, err);
	struct freeze freeze;
	struct distro distro;
	int ret = lock_fd < 0 ? lock_fd : registry_find(&cli->dirs, name, &distro, err);

	if (ret)
		return ret;
	work_announce(lock_fd, "Exporting", distro.name, distro.version);
	ret = freeze_begin(&freeze, &cli->dirs, distro.name, err);
	if (ret)
		return ret;
	ret = copies_snapshot(&cli->dirs, &distro, tag, freeze.thawer > 0, err);
	freeze_end(&freeze);
	return ret;
}

static int discard(struct cli *cli, const char *name, const char *tag, struct pil_err *err)
{
	_auto_fd int lock_fd = registry_lock(&cli->dirs, err);
	struct distro distro;
	int ret = lock_fd < 0 ? lock_fd : registry_find(&cli->dirs, name, &distro, err);

	return ret ? ret : copies_snapshot_remove(&cli->dirs, &distro, tag, err);
}

int cmd_snapshot(struct cli *cli, int argc, char **argv)
{
	const char *gone = NULL, *tag, *name;
	struct pil_err err = {0};
	time_t now = time(NULL);
	char stamp[32];
	struct tm tm;
	int id;

	optind = 1;
	while ((id = options_next(CMD_SNAPSHOT, "", argc, argv)) != OPTIONS_END) {
		if (id != OPT_SNAPSHOT_DELETE)
			return cli_usage(CMD_SNAPSHOT, options_why());
		gone = optarg;
	}
	if (argc - optind < 1 || argc - optind > (gone ? 1 : 2))
		return cli_usage(CMD_SNAPSHOT, "a distribution is needed, then perhaps a tag");
	name = argv[optind];
	strftime(stamp, sizeof(stamp), "%Y-%m-%d_%H.%M.%S", localtime_r(&now, &tm));
	tag = argc - optind == 2 ? argv[optind + 1] : stamp;
	if (gone ? discard(cli, name, gone, &err) : snapshot(cli, name, tag, &err))
		return cli_fail(&err);
	if (!gone)
		printf("Snapshot '%s' is made.  pillion --restore %s %s goes back to it.\n", tag,
		       name, tag);
	return EXIT_SUCCESS;
}

static int restore(struct cli *cli, const char *name, const char *tag, struct pil_err *err)
{
	_auto_fd int lock_fd = registry_lock(&cli->dirs, err);
	struct distro distro;
	int ret = lock_fd < 0 ? lock_fd : registry_find(&cli->dirs, name, &distro, err);

	if (!ret)
		ret = cli_claim_stopped(cli, lock_fd, "Converting", &distro, err);
	return ret ? ret : copies_restore(&cli->dirs, &distro, tag, err);
}

int cmd_restore(struct cli *cli, int argc, char **argv)
{
	struct pil_err err = {0};

	if (argc != 3)
		return cli_usage(CMD_RESTORE, "a distribution and a tag are needed");
	if (restore(cli, argv[1], argv[2], &err))
		return cli_fail(&err);
	puts("The operation completed successfully.");
	return EXIT_SUCCESS;
}

/* ---- --list --snapshots ---- */

static const char *when(const struct snapshot *s, char *out, size_t size)
{
	time_t made = (time_t)s->made;
	struct tm tm;

	if (!localtime_r(&made, &tm) || !strftime(out, size, "%Y-%m-%d %H:%M:%S", &tm))
		snprintf(out, size, "?");
	return out;
}

static void add_json(json_t *array, const char *name, const struct snapshot *s)
{
	json_array_append_new(array,
			      json_pack("{s:s, s:s, s:i, s:I}", "name", name, "tag", s->tag,
					"version", (int)s->version, "made", (json_int_t)s->made));
}

int cli_list_snapshots(struct cli *cli, bool json)
{
	_auto_free struct distro *distros = NULL;
	json_auto_t *array = json_array();
	struct pil_err err = {0};
	int n = registry_list(&cli->dirs, &distros, &err);
	char time_text[32];

	if (n < 0)
		return cli_fail(&err);
	if (!json)
		printf("%-24s %-24s %-8s %s\n", "NAME", "SNAPSHOT", "VERSION", "MADE");
	for (int i = 0; i < n; i++) {
		_auto_free struct snapshot *list = NULL;
		int count = copies_list(&cli->dirs, &distros[i], &list, &err);

		for (int k = 0; k < count; k++) {
			if (json)
				add_json(array, distros[i].name, &list[k]);
			else
				printf("%-24s %-24s %-8u %s\n", distros[i].name, list[k].tag,
				       list[k].version,
				       when(&list[k], time_text, sizeof(time_text)));
		}
	}
	if (json) {
		json_dumpf(array, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	return EXIT_SUCCESS;
}
