/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion --import NAME [FOLDER] FILE: a distribution of an archive, a container image or, with
 * --vhd, a copy of a disk; --import-in-place NAME FILE: of a disk, which stays where it is. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/config.h"
#include "disk/install.h"
#include "disk/source.h"

/* Says what is going on, does it. */
static int import(struct cli *cli, const char *name, const char *location,
		  const struct source *source, uint64_t version)
{
	_auto_free char *path = str_printf("%s/config", cli->dirs.config);
	struct config config;
	struct pil_err err = {0};
	struct install i = {.name = name,
			    .flavor = "imported",
			    .location = location,
			    .make = source_make,
			    .source = source,
			    .dirs = &cli->dirs,
			    .config = &config};
	int ret = config_load(&config, path, &err);

	if (ret)
		return cli_fail(&err);
	ret = install_check_name(&cli->dirs, name, &err);
	if (!ret)
		ret = cli_choose_version(cli, &version, &config, &err);
	if (!ret) {
		fprintf(stderr, "Import in progress, this may take a few minutes.\n");
		i.version = (unsigned)version;
		ret = install_distro(&i, &err);
	}
	config_finish(&config);
	if (ret)
		return cli_fail(&err);
	puts("The operation completed successfully.");
	return EXIT_SUCCESS;
}

/* An image has a word of its own before it, so that its folder can be left out. */
static bool is_image(const char *word)
{
	return !strncmp(word, "oci:", 4) || !strncmp(word, "oci-archive:", 12) ||
	       !strncmp(word, "docker-archive:", 15) || !strncmp(word, "docker://", 9);
}

int cmd_import(struct cli *cli, int argc, char **argv)
{
	struct source source = {0};
	struct pil_err err = {0};
	uint64_t version = 0;
	bool disk = false;
	const char *file;
	int id, ret, n;

	optind = 1;
	while ((id = options_next(CMD_IMPORT, "", argc, argv)) != OPTIONS_END) {
		if (id == OPT_IMPORT_VHD)
			disk = true;
		else if (id != OPT_IMPORT_VERSION)
			return cli_usage(CMD_IMPORT, options_why());
		else if (!str_to_u64(optarg, 3, &version) || !version)
			return cli_usage(CMD_IMPORT, "--version is 1 (sandbox) or 2 (microVM)");
	}
	n = argc - optind;
	if (n != 3 && (n != 2 || !is_image(argv[argc - 1])))
		return cli_usage(CMD_IMPORT, "a name, a folder and a file are needed");
	file = argv[argc - 1];
	if (disk)
		source = (struct source){.kind = SOURCE_DISK, .path = str_printf("%s", file)};
	else if (source_parse(&source, file, &err))
		return cli_fail(&err);
	if (disk && !version)
		version = 2;
	ret = import(cli, argv[optind], n == 3 ? argv[optind + 1] : NULL, &source, version);
	source_finish(&source);
	return ret;
}

int cmd_import_in_place(struct cli *cli, int argc, char **argv)
{
	struct source source = {.kind = SOURCE_DISK_THERE};
	int ret;

	if (argc != 3)
		return cli_usage(CMD_IMPORT_IN_PLACE, "a name and a file are needed");
	source.path = str_printf("%s", argv[2]);
	ret = import(cli, argv[1], NULL, &source, 2);
	source_finish(&source);
	return ret;
}
