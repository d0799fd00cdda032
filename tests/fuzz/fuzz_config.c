/* SPDX-License-Identifier: Apache-2.0
 *
 * The user's settings: any file is read or refused with a line, and freed. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config.h"
#include "log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	static char path[32];
	struct pil_err err = {0};
	struct config config;

	if (fd < 0) {
		setenv("PILLION_LOG", "err", 1); /* not a line for each unknown key */
		log_init("fuzz_config");
		fd = memfd_create("config", MFD_CLOEXEC);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	if (config_load(&config, path, &err) == 0)
		config_finish(&config);
	return 0;
}
