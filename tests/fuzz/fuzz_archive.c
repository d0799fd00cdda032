/* SPDX-License-Identifier: Apache-2.0
 *
 * Unpacking an archive, and a layer of an image, that somebody else made. */
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

#include "archive/extract.h"
#include "base/fd.h"
#include "base/path.h"

enum { MAX_BYTES = 1 << 20, MAX_WRITTEN = 4 << 20 };

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/dev/shm/fuzz-archive-XXXXXX";

static void map(const char *file, const char *text)
{
	_auto_fd int fd = open(file, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		perror(file);
}

/* The root folder is one in memory; its parent holds what must not be touched. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct rlimit file = {MAX_WRITTEN, MAX_WRITTEN};
	char uid[32], gid[32];

	(void)argc;
	(void)argv;
	snprintf(uid, sizeof(uid), "0 %u 1", getuid());
	snprintf(gid, sizeof(gid), "0 %u 1", getgid());
	if (unshare(CLONE_NEWUSER) || setrlimit(RLIMIT_FSIZE, &file) || !mkdtemp(folder))
		perror("fuzz_archive");
	map("/proc/self/setgroups", "deny");
	map("/proc/self/uid_map", uid);
	map("/proc/self/gid_map", gid);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_auto_fd int fd = memfd_create("archive", MFD_CLOEXEC);
	_auto_fd int old = open(".", O_PATH | O_CLOEXEC);
	static const enum extract_pass passes[] = {EXTRACT_ALL, EXTRACT_WHITEOUTS, EXTRACT_FILES};

	signal(SIGXFSZ, SIG_IGN); /* libFuzzer sets it after we are initialised */
	if (size > MAX_BYTES || fd < 0 || old < 0 || pil_write_all(fd, data, size) ||
	    chdir(folder) || mkdir("tree", 0700) || chdir("tree"))
		goto out;
	for (size_t i = 0; i < sizeof(passes) / sizeof(passes[0]); i++) {
		struct extract_limits limits = {.bytes = MAX_WRITTEN, .files = 256};

		if (lseek(fd, 0, SEEK_SET) < 0 || extract_run(fd, passes[i], &limits, NULL))
			continue;
	}
out:
	if (fchdir(old) || chmod(folder, 0700))
		abort();
	if (path_empty_folder(folder))
		abort();
	return 0;
}
