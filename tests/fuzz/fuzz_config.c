/* SPDX-License-Identifier: Apache-2.0
 *
 * Settings: any file is read or refused with a line, and freed; and any text takes a setting, which
 * is then found in it, and gives it back. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "config/config.h"
#include "config/config_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void change(const char *path, const struct config_key *key)
{
	static const char *const value = "value";
	char *text, *with, *without, *found;

	if (pil_read_file(path, 1 << 20, &text) < 0)
		return;
	with = config_text_set(text, key, &value, 1);
	found = config_text_get(with, key);
	if (!found || strcmp(found, value))
		abort();
	without = config_text_set(with, key, NULL, 0);
	if (config_text_get(without, key))
		abort();
	free(text);
	free(with);
	free(found);
	free(without);
}

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
	if (config_check_machine(path, &err) == 0 && size)
		change(path, &config_keys[data[size - 1] % config_num_keys]);
	return 0;
}
