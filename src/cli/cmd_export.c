/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --export NAME FILE: an archive of a distribution, or with --format vhd its disk as a raw
 * image.  The file has its name only once it is whole. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/config.h"
#include "config/registry.h"
#include "config/work.h"
#include "disk/export.h"
#include "machine/freeze.h"
#include "tree/archive.h"

struct options {
	const char *name, *file;
	const struct archive_format *format; /* NULL: a disk */
};

/* The format that the file's name ends with, else tar. */
static const struct archive_format *format_of_name(const char *file)
{
	const struct archive_format *found = archive_formats;

	for (const struct archive_format *f = archive_formats; f->name; f++) {
		size_t n = strlen(f->name), len = strlen(file);

		if (len > n && file[len - n - 1] == '.' && !strcmp(file + len - n, f->name))
			found = f;
	}
	return found;
}

static bool set_format(struct options *o, const char *name, bool *given)
{
	*given = true;
	o->format = NULL;
	if (!strcmp(name, "vhd"))
		return true;
	for (const struct archive_format *f = archive_formats; f->name && !o->format; f++)
		if (!strcmp(name, f->name))
			o->format = f;
	return o->format;
}

static int parse(int argc, char **argv, struct options *o)
{
	bool given = false;
	int id;

	*o = (struct options){0};
	optind = 1;
	while ((id = options_next(CMD_EXPORT, "", argc, argv)) != OPTIONS_END) {
		if (id == OPT_EXPORT_VHD)
			set_format(o, "vhd", &given);
		else if (id != OPT_EXPORT_FORMAT)
			return cli_usage(CMD_EXPORT, options_why());
		else if (!set_format(o, optarg, &given))
			return cli_usage(CMD_EXPORT,
					 "--format is tar, tar.gz, tar.xz, tar.zst or vhd");
	}
	if (argc - optind != 2)
		return cli_usage(CMD_EXPORT, "a distribution and a file are needed");
	o->name = argv[optind];
	o->file = argv[optind + 1];
	if (!given)
		o->format = format_of_name(o->file);
	if (!o->format && !strcmp(o->file, "-"))
		return cli_usage(CMD_EXPORT, "a disk cannot go to standard output");
	return 0;
}

/* Writes an archive to @part, NULL: to standard output. */
static int write_archive(struct export *e, const struct options *o, const char *part,
			 struct pil_err *err)
{
	_auto_fd int fd = part ? open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)
			       : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	int ret = fd < 0 ? pil_err_set(err, errno, "make '%s'", part ? part : "standard output")
			 : export_archive(e, fd, o->format->filter, err);

	if (!ret && part && fsync(fd))
		ret = pil_err_set(err, errno, "write '%s'", part);
	return ret;
}

/* A disk that is in use is copied while its machine stands still, a tree is packed. */
static int write_it(struct cli *cli, const struct options *o, const struct distro *distro,
		    const struct config *config, const char *part, struct pil_err *err)
{
	struct freeze freeze;
	struct export e;
	int ret = freeze_begin(&freeze, &cli->dirs, distro->name, err);

	if (ret)
		return ret;
	ret = export_begin(&e, &cli->dirs, distro, freeze.thawer > 0, err);
	if (distro->version == 2)
		freeze_end(&freeze);
	if (!ret)
		ret = o->format ? write_archive(&e, o, part, err)
				: export_disk(&e, config, part, err);
	freeze_end(&freeze);
	export_finish(&e);
	return ret;
}

static int export(struct cli *cli, const struct options *o, const struct config *config,
		  struct pil_err *err)
{
	_auto_free char *part = strcmp(o->file, "-") ? str_printf("%s.part", o->file) : NULL;
	_auto_fd int lock_fd = registry_lock(&cli->dirs, err);
	struct distro distro;
	int ret = lock_fd < 0 ? lock_fd : registry_find(&cli->dirs, o->name, &distro, err);

	if (ret)
		return ret;
	work_announce(lock_fd, "Exporting", distro.name, distro.version);
	fprintf(stderr, "Export in progress, this may take a few minutes.\n");
	ret = write_it(cli, o, &distro, config, part, err);
	if (!ret && part && rename(part, o->file))
		ret = pil_err_set(err, errno, "make '%s'", o->file);
	if (ret && part)
		unlink(part);
	return ret;
}

int cmd_export(struct cli *cli, int argc, char **argv)
{
	_auto_free char *path = str_printf("%s/config", cli->dirs.config);
	struct config config;
	struct pil_err err = {0};
	struct distro distro;
	struct options o;
	int ret = parse(argc, argv, &o);

	if (ret || !o.file)
		return ret;
	if (registry_find(&cli->dirs, o.name, &distro, &err) || config_load(&config, path, &err))
		return cli_fail(&err);
	ret = export(cli, &o, &config, &err);
	config_finish(&config);
	if (ret)
		return cli_fail(&err);
	if (strcmp(o.file, "-") != 0)
		puts("The operation completed successfully.");
	return EXIT_SUCCESS;
}
