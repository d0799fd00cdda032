/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-image extract|finish IMAGE FOLDER [--report-fd N] -- started by image.c, as uid 0 of the
 * user namespace that owns the folder, in a pen where image and folder are all there is.  Why it
 * failed it says on descriptor N (report.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/report.h"
#include "base/str.h"
#include "disk/image_files.h"

enum { MAX_MEMORY_BYTES = 2000 << 20 };

static int settle(const char *folder, struct pil_err *err)
{
	struct rlimit memory = {MAX_MEMORY_BYTES, MAX_MEMORY_BYTES};

	umask(0);
	if (chdir(folder) || setrlimit(RLIMIT_AS, &memory))
		return pil_err_set(err, errno, "go to folder '%s'", folder);
	return 0;
}

int main(int argc, char **argv)
{
	struct image_files *files = NULL;
	struct pil_err err = {0};
	int report_fd = report_take_fd(&argc, argv);
	bool finish = argc == 4 && !strcmp(argv[1], "finish");
	char safe[2 * sizeof(err.msg)];
	int ret, closed;

	if (argc != 4 || (!finish && strcmp(argv[1], "extract") != 0)) {
		fputs("usage: pillion-image extract|finish IMAGE FOLDER\n", stderr);
		return EXIT_FAILURE;
	}
	ret = image_files_open(&files, argv[2], finish, &err);
	if (!ret)
		ret = settle(argv[3], &err);
	if (!ret)
		ret = finish ? image_files_finish(files, &err) : image_files_extract(files, &err);
	closed = image_files_close(files, ret ? NULL : &err);
	if (ret || closed) {
		report_send(report_fd, &err);
		fprintf(stderr, "%s\n", str_escape_controls(safe, sizeof(safe), err.msg));
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
