/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <ini.h>

#include "fd.h"
#include "log.h"
#include "path.h"
#include "str.h"

enum { MAX_SHARE_BYTES = 200 };

static bool set_env(struct config *c, const char *value)
{
	if (c->n_env == CONFIG_MAX_ENV || !strchr(value, '=') || value[0] == '=')
		return false;
	c->env[c->n_env++] = strdup(value);
	return true;
}

/* The name must do as a field of pillion-init's --mount TAG:PATH, and be one step of a path. */
static bool is_share_name(const struct config *c, const char *name)
{
	if (!name[0] || !strcmp(name, ".") || !strcmp(name, "..") || strchr(name, ':'))
		return false;
	for (const char *p = name; *p; p++)
		if ((unsigned char)*p < ' ')
			return false;
	for (int i = 0; i < c->n_shares; i++)
		if (!strcmp(c->shares[i].name, name))
			return false;
	return true;
}

/* PATH, PATH:ro, PATH:rw */
static bool set_share(struct config *c, const char *value)
{
	_auto_free char *path = str_printf("%s", value);
	char *colon = strrchr(path, ':');
	bool writable = colon && !strcmp(colon, ":rw");
	size_t len;

	if (writable || (colon && !strcmp(colon, ":ro")))
		*colon = '\0';
	for (len = strlen(path); len > 1 && path[len - 1] == '/';)
		path[--len] = '\0';
	if (path[0] != '/' || len > MAX_SHARE_BYTES || c->n_shares == CONFIG_MAX_SHARES ||
	    !is_share_name(c, strrchr(path, '/') + 1))
		return false;
	c->shares[c->n_shares].writable = writable;
	c->shares[c->n_shares].name = strrchr(path, '/') + 1;
	c->shares[c->n_shares++].path = pil_take_ptr(&path);
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

static bool set_reference(struct config *c, const char *value)
{
	c->reference_always = !strcasecmp(value, "always");
	return c->reference_always || !strcasecmp(value, "auto");
}

static bool set_swap(struct config *c, const char *value)
{
	c->swap_set = true;
	return str_to_bytes(value, &c->swap_bytes);
}

static bool set_reclaim(struct config *c, const char *value)
{
	static const char *const names[] = {[CONFIG_RECLAIM_DISABLED] = "disabled",
					    [CONFIG_RECLAIM_GRADUAL] = "gradual",
					    [CONFIG_RECLAIM_DROP_CACHE] = "dropCache"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcasecmp(value, names[i])) {
			c->auto_memory_reclaim = (enum config_reclaim)i;
			return true;
		}
	return false;
}

static bool set_text(char **field, const char *value)
{
	free(*field);
	*field = value[0] ? strdup(value) : NULL;
	return true;
}

static bool set_bool(bool *field, const char *value)
{
	*field = !strcasecmp(value, "true") || !strcmp(value, "1");
	return *field || !strcasecmp(value, "false") || !strcmp(value, "0");
}

static bool set_unsigned(unsigned *field, const char *value, unsigned max)
{
	uint64_t v;

	if (!str_to_u64(value, max, &v))
		return false;
	*field = (unsigned)v;
	return true;
}

enum kind {
	KEY_BOOL,
	KEY_BYTES,
	KEY_OWN, /* .set */
	KEY_TEXT,
	KEY_UNSIGNED,        /* at most .max */
	KEY_WITHOUT_MEANING, /* accepted, because people have it in their .wslconfig */
};

static const struct key {
	const char *section, *name;
	enum kind kind;
	size_t field; /* offset in struct config */
	unsigned max;
	bool (*set)(struct config *c, const char *value);
	const char *takes; /* NULL: docs/config.md says it */
} keys[] = {
	{"accel", "env", KEY_OWN, .set = set_env},
	{"accel", "ggml_dir", KEY_TEXT, offsetof(struct config, ggml_dir)},
	{"accel", "quota", KEY_BYTES, offsetof(struct config, quota_bytes)},
	{"accel", "reference", KEY_OWN, .set = set_reference},
	{"experimental", "autoMemoryReclaim", KEY_OWN, .set = set_reclaim},
	{"experimental", "hostAddressLoopback", KEY_BOOL,
	 offsetof(struct config, host_address_loopback)},
	{"npu", "min_tops", KEY_UNSIGNED, offsetof(struct config, npu_min_tops), 100000},
	{"wsl2", "autoMemoryReclaim", KEY_OWN, .set = set_reclaim},
	{"wsl2", "debugConsole", KEY_WITHOUT_MEANING},
	{"wsl2", "defaultVersion", KEY_UNSIGNED, offsetof(struct config, default_version), 3},
	{"wsl2", "defaultVhdSize", KEY_BYTES, offsetof(struct config, default_disk_bytes)},
	{"wsl2", "gpuSupport", KEY_WITHOUT_MEANING},
	{"wsl2", "guiApplications", KEY_WITHOUT_MEANING},
	{"wsl2", "kernel", KEY_TEXT, offsetof(struct config, kernel)},
	{"wsl2", "kernelCommandLine", KEY_TEXT, offsetof(struct config, kernel_command_line)},
	{"wsl2", "localhostForwarding", KEY_BOOL, offsetof(struct config, localhost_forwarding)},
	{"wsl2", "memory", KEY_BYTES, offsetof(struct config, memory_bytes)},
	{"wsl2", "nestedVirtualization", KEY_BOOL, offsetof(struct config, nested_virtualization)},
	{"wsl2", "networkingMode", KEY_WITHOUT_MEANING},
	{"wsl2", "processors", KEY_UNSIGNED, offsetof(struct config, processors), 4096},
	{"wsl2", "share", KEY_OWN, .set = set_share,
	 .takes = "the absolute path of a folder, with :rw at its end if machines may write to it; "
		  "at most 7 folders, whose last parts all differ, each of at most 200 bytes"},
	{"wsl2", "swap", KEY_OWN, .set = set_swap},
	{"wsl2", "swapFile", KEY_WITHOUT_MEANING},
	{"wsl2", "vmIdleTimeout", KEY_OWN, .set = set_timeout},
};

static bool apply(struct config *c, const struct key *key, const char *value)
{
	void *field = (char *)c + key->field;

	switch (key->kind) {
	case KEY_BOOL:
		return set_bool(field, value);
	case KEY_BYTES:
		return str_to_bytes(value, field);
	case KEY_OWN:
		return key->set(c, value);
	case KEY_TEXT:
		return set_text(field, value);
	case KEY_UNSIGNED:
		return set_unsigned(field, value, key->max);
	case KEY_WITHOUT_MEANING:
		return true;
	}
	return false;
}

struct reading {
	struct config *config;
	char wrong[160];       /* the setting it stopped at */
	const struct key *key; /* its key */
};

/* inih's handler: 0 stops with this line's number. */
static int set_key(void *user, const char *section, const char *name, const char *value)
{
	struct reading *r = user;

	snprintf(r->wrong, sizeof(r->wrong), "%.40s = %.100s", name, value);
	if (!strcasecmp(section, "pillion")) /* for those who find [wsl2] odd here */
		section = "wsl2";
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (!strcasecmp(section, keys[i].section) && !strcasecmp(name, keys[i].name)) {
			r->key = &keys[i];
			return apply(r->config, &keys[i], value);
		}
	log_warn("config: unknown key %s in section [%s] is ignored", name, section);
	return 1;
}

int config_load(struct config *config, const char *path, struct pil_err *err)
{
	struct reading reading = {.config = config};
	char safe[4 * sizeof(reading.wrong)];
	int line;

	*config = (struct config){.vm_idle_timeout_ms = 60000,
				  .npu_min_tops = 40,
				  .localhost_forwarding = true,
				  .default_disk_bytes = 1ull << 40,
				  .auto_memory_reclaim = CONFIG_RECLAIM_GRADUAL};
	if (!path_exists(path))
		return 0;
	line = ini_parse(path, set_key, &reading);
	if (line == 0)
		return 0;
	config_finish(config);
	if (line < 0)
		return pil_err_set(err, errno ? errno : EIO, "read config '%s'", path);
	if (reading.key && reading.key->takes)
		pil_err_hint(err, "%s takes %s", reading.key->name, reading.key->takes);
	else
		pil_err_hint(err, "mend or remove that line; docs/config.md lists the keys and "
				  "their values");
	return pil_err_say(err, EINVAL, "config '%s' line %d: not a valid setting: %s", path, line,
			   str_escape(safe, sizeof(safe), reading.wrong));
}

void config_finish(struct config *config)
{
	for (int i = 0; i < config->n_env; i++)
		free(config->env[i]);
	for (int i = 0; i < config->n_shares; i++)
		free(config->shares[i].path);
	free(config->ggml_dir);
	free(config->kernel);
	free(config->kernel_command_line);
	*config = (struct config){0};
}
