/* SPDX-License-Identifier: Apache-2.0
 *
 * Makes the spec of a distribution's machine.  This is where settings become what a supervisor is
 * told: nothing past it reads a config or the registry. */
#include "machine/distro_spec.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/exposed.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "config/config.h"
#include "config/registry.h"
#include "disk/image.h"
#include "machine/shares.h"
#include "machine/spec.h"

static_assert(1 + CONFIG_MAX_SHARES <= SPEC_MAX_SHARES, "add_shares() adds all of them");

/* A folder of the user's that is not there refuses the machine: what programs wrote to it would
 * stay in the machine, unseen. */
static int look_at(const struct config *config, int index, const struct state_dirs *dirs,
		   struct pil_err *err)
{
	const char *path = config->shares[index].path;
	_auto_fd int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		return shares_check(config, index, dirs, err);
	pil_err_hint(err, "make it, or remove 'share = %.150s' from the config", path);
	return pil_err_set(err, errno, "folder '%s' of the host", path);
}

static int add_shares(struct machine_spec *spec, const struct config *config,
		      const struct state_dirs *dirs, struct pil_err *err)
{
	struct machine_share *to = spec->shares;
	int ret = 0;

	to[spec->n_shares++] = (struct machine_share){.host = str_printf("%s/models", dirs->cache),
						      .guest = strdup("/mnt/models"),
						      .direct = true /* executors map its files */,
						      .plain = true};
	if (path_mkdirs(to->host, 0755))
		return pil_err_set(err, errno, "make the folder of models");
	for (int i = 0; i < config->n_shares && !ret; i++) {
		const struct config_share *share = &config->shares[i];

		ret = look_at(config, i, dirs, err);
		if (!ret)
			to[spec->n_shares++] = (struct machine_share){
				.host = strdup(share->path),
				.guest = str_printf(EXPOSED_HOST_FOLDERS "/%s", share->name),
				.writable = share->writable,
				.direct = share->writable || share->sockets,
				.needed = true};
	}
	return ret;
}

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void add_settings(struct machine_spec *spec, const struct config *config)
{
	spec->idle_ms = config->vm_idle_timeout_ms;
	spec->memory_bytes = (int64_t)config->memory_bytes;
	spec->processors = config->processors;
	spec->swap_bytes = config->swap_set ? (int64_t)config->swap_bytes : -1;
	spec->network = !config->no_network;
	spec->forward_ports = config->localhost_forwarding;
	spec->host_loopback = config->host_address_loopback;
	spec->system_call_filter = config->system_call_filter;
	spec->kernel = copy(config->kernel);
	spec->kernel_options = copy(config->kernel_command_line);
	spec->nested = config->nested_virtualization;
	spec->reclaim = config->auto_memory_reclaim;
}

int distro_spec_make(struct machine_spec *spec, const struct state_dirs *dirs, const char *name,
		     struct pil_err *err)
{
	struct distro distro = {0};
	struct config config;
	int ret = registry_find(dirs, name, &distro, err);

	if (!ret)
		ret = config_load_machine(&config, dirs, distro.name, err);
	if (ret)
		return ret;
	spec_begin(spec);
	spec->name = strdup(distro.name);
	spec->user = str_printf("%u", distro.default_uid);
	if (distro.version == 2)
		spec->disk = str_printf("%s/distros/%s/" IMAGE_NAME, dirs->data, distro.name);
	else
		spec->folder = str_printf("%s/distros/%s/rootfs", dirs->data, distro.name);
	spec->lock = registry_lock_path(dirs);
	add_settings(spec, &config);
	ret = add_shares(spec, &config, dirs, err);
	config_finish(&config);
	if (ret)
		spec_finish(spec);
	return ret;
}
