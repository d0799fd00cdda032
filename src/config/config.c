/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <ini.h>

#include "fd.h"
#include "log.h"
#include "path.h"
#include "str.h"

/* Keys of .wslconfig that are accepted and have no meaning here (yet). */
static const char *const ignored_keys[] = {
	"memory",
	"processors",
	"swap",
	"swapFile",
	"kernel",
	"kernelCommandLine",
	"gpuSupport",
	"networkingMode",
	"localhostForwarding",
	"guiApplications",
	"nestedVirtualization",
	"debugConsole",
};

static bool set_replace(char **field, const char *value)
{
	free(*field);
	*field = value[0] ? strdup(value) : NULL;
	return true;
}

static bool set_env(struct config *c, const char *value)
{
	if (c->n_env == CONFIG_MAX_ENV || !strchr(value, '=') || value[0] == '=')
		return false;
	c->env[c->n_env++] = strdup(value);
	return true;
}

static bool set_timeout(struct config *c, const char *value)
{
	uint64_t ms;

	if (!strcmp(value, "-1")) {
		c->vm_idle_timeout_ms = -1;
		return true;
	}
	if (!str_to_u64(value, INT32_MAX, &ms))
		return false;
	c->vm_idle_timeout_ms = (int64_t)ms;
	return true;
}

static bool set_unsigned(unsigned *field, const char *value, unsigned max)
{
	uint64_t v;

	if (!str_to_u64(value, max, &v))
		return false;
	*field = (unsigned)v;
	return true;
}

static bool set_reference(struct config *c, const char *value)
{
	c->reference_always = !strcasecmp(value, "always");
	return c->reference_always || !strcasecmp(value, "auto");
}

/* inih's handler: 0 stops with this line's number. */
static int set_key(void *user, const char *section, const char *name, const char *value)
{
	struct config *c = user;

	if (!strcasecmp(section, "wsl2") || !strcasecmp(section, "pillion")) {
		if (!strcasecmp(name, "vmIdleTimeout"))
			return set_timeout(c, value);
		if (!strcasecmp(name, "defaultVersion"))
			return set_unsigned(&c->default_version, value, 3);
		for (size_t i = 0; i < ARRAY_SIZE(ignored_keys); i++)
			if (!strcasecmp(name, ignored_keys[i]))
				return 1;
	} else if (!strcasecmp(section, "accel")) {
		if (!strcasecmp(name, "ggml_dir"))
			return set_replace(&c->ggml_dir, value);
		if (!strcasecmp(name, "reference"))
			return set_reference(c, value);
		if (!strcasecmp(name, "quota"))
			return str_to_bytes(value, &c->quota_bytes);
		if (!strcasecmp(name, "env"))
			return set_env(c, value);
	} else if (!strcasecmp(section, "npu") && !strcasecmp(name, "min_tops")) {
		return set_unsigned(&c->npu_min_tops, value, 100000);
	}
	log_warn("config: unknown key %s in section [%s] is ignored", name, section);
	return 1;
}

int config_load(struct config *config, const char *path, struct pil_err *err)
{
	int line;

	*config = (struct config){.vm_idle_timeout_ms = 60000, .npu_min_tops = 40};
	if (!path_exists(path))
		return 0;
	line = ini_parse(path, set_key, config);
	if (line == 0)
		return 0;
	config_finish(config);
	if (line < 0)
		return pil_err_set(err, errno ? errno : EIO, "read config '%s'", path);
	pil_err_hint(err, "mend or remove that line; docs/config.md lists the keys");
	return pil_err_say(err, EINVAL, "config '%s' line %d: not a valid setting", path, line);
}

void config_finish(struct config *config)
{
	for (int i = 0; i < config->n_env; i++)
		free(config->env[i]);
	free(config->ggml_dir);
	*config = (struct config){0};
}
