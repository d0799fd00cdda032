/* SPDX-License-Identifier: Apache-2.0
 *
 * Turning a disk that a guest has written into a tree. */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "disk/image.h"
#include "disk/image_files.h"

enum { MAX_BYTES = 1 << 20 };

/* With ASan's own; a small disk must not take more, however it is made. */
#define RSS_LIMIT "-rss_limit_mb=640"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void map(const char *file, const char *text)
{
	_auto_fd int fd = open(file, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		perror(file);
}

/* What is made goes to memory; devices cannot be, and owners are us or nobody. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct rlimit file = {MAX_BYTES, MAX_BYTES};
	char **args = calloc((size_t)*argc + 2, sizeof(*args)), uid[32], gid[32];

	if (!args)
		abort();
	memcpy(args, *argv, (size_t)*argc * sizeof(*args));
	args[(*argc)++] = strdup(RSS_LIMIT); /* the last one counts */
	*argv = args;
	snprintf(uid, sizeof(uid), "0 %u 1", getuid());
	snprintf(gid, sizeof(gid), "0 %u 1", getgid());
	if (unshare(CLONE_NEWUSER) || setrlimit(RLIMIT_FSIZE, &file))
		perror("fuzz_image");
	map("/proc/self/setgroups", "deny");
	map("/proc/self/uid_map", uid);
	map("/proc/self/gid_map", gid);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char folder[] = "/dev/shm/fuzz-image-XXXXXX", path[64];
	int fd = memfd_create("image", MFD_CLOEXEC), old = open(".", O_PATH | O_CLOEXEC);
	struct image_files *files = NULL;
	struct pil_err err = {0};

	signal(SIGXFSZ, SIG_IGN); /* libFuzzer sets it after we are initialised */
	(void)image_state(data, size);
	if (size <= MAX_BYTES && fd >= 0 && old >= 0 && mkdtemp(folder)) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (pil_write_all(fd, data, size) == 0 &&
		    image_files_open(&files, path, false, &err) == 0 && chdir(folder) == 0 &&
		    image_files_extract(files, &err) == 0)
			chmod(folder, 0700);
		if (image_files_close(files, NULL) || fchdir(old) || chmod(folder, 0700) ||
		    path_remove_tree(folder))
			abort();
	}
	close(fd);
	close(old);
	return 0;
}
