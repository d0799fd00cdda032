/* SPDX-License-Identifier: Apache-2.0
 *
 * config.c -- reads the settings: defaults, then the user's config, then the machine's own file.
 * One table (config_keys.h) says what each key takes and where it goes. */
#include "config/config.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include <ini.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "config/config_keys.h"

enum { MAX_SHARE_BYTES = 200, MAX_FILE_BYTES = 1 << 20 };

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

/* Cuts @suffix off @text. */
static bool cut(char *text, const char *suffix)
{
	size_t len = strlen(text), end = strlen(suffix);
	bool there = len > end && !strcmp(text + len - end, suffix);

	if (there)
		text[len - end] = '\0';
	return there;
}

/* PATH, PATH:ro, PATH:sockets, PATH:rw, each with :unsafe behind it or not */
static bool set_share(struct config *c, const char *value)
{
	_auto_free char *path = str_printf("%s", value);
	bool unsafe = cut(path, ":unsafe"), writable = cut(path, ":rw");
	bool sockets = !writable && cut(path, ":sockets");
	size_t len;

	if (!writable)
		cut(path, ":ro");
	for (len = strlen(path); len > 1 && path[len - 1] == '/';)
		path[--len] = '\0';
	if (path[0] != '/' || len > MAX_SHARE_BYTES || c->n_shares == CONFIG_MAX_SHARES ||
	    !is_share_name(c, strrchr(path, '/') + 1))
		return false;
	c->shares[c->n_shares].writable = writable;
	c->shares[c->n_shares].sockets = sockets;
	c->shares[c->n_shares].unsafe = unsafe;
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
	for (int i = 0; i < INIT_NUM_RECLAIMS; i++)
		if (!strcasecmp(value, init_reclaim_str[i])) {
			c->auto_memory_reclaim = (enum init_reclaim)i;
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

static bool set_network(struct config *c, const char *value)
{
	static const char *const as_nat[] = {"nat", "mirrored", "bridged", "consomme",
					     "virtioproxy"};

	c->no_network = !strcasecmp(value, "none");
	for (size_t i = 0; i < ARRAY_SIZE(as_nat) && !c->no_network; i++)
		if (!strcasecmp(value, as_nat[i])) {
			if (i)
				log_warn("config: networkingMode=%s is not there: nat is used",
					 as_nat[i]);
			return true;
		}
	return c->no_network;
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

static bool set_weight(struct config *c, const char *value)
{
	return set_unsigned(&c->weight, value, 1000) && c->weight;
}

static void clear_env(struct config *c)
{
	while (c->n_env)
		free(c->env[--c->n_env]);
}

static void clear_shares(struct config *c)
{
	while (c->n_shares)
		free(c->shares[--c->n_shares].path);
}

#define FIELD(member) .field = offsetof(struct config, member)

const struct config_key config_keys[] = {
	{"accel", "env", CONFIG_KEY_OWN, "", .set = set_env, .clear = clear_env,
	 .takes = "NAME=VALUE, at most 16 times"},
	{"accel", "ggml_dir", CONFIG_KEY_TEXT, "the runtime kit's", FIELD(ggml_dir)},
	{"accel", "quota", CONFIG_KEY_BYTES, "none", FIELD(quota_bytes), .of_machine = true},
	{"accel", "reference", CONFIG_KEY_OWN, "auto", .set = set_reference,
	 .takes = "auto or always"},
	{"accel", "weight", CONFIG_KEY_OWN, "100", .set = set_weight, .of_machine = true,
	 .takes = "a number from 1 to 1000"},
	{"experimental", "autoMemoryReclaim", CONFIG_KEY_OWN, "gradual", .set = set_reclaim,
	 .of_machine = true, .takes = "disabled, gradual or dropCache"},
	{"experimental", "hostAddressLoopback", CONFIG_KEY_BOOL, "false",
	 FIELD(host_address_loopback), .of_machine = true},
	{"npu", "min_tops", CONFIG_KEY_WITHOUT_MEANING, ""},
	{"sandbox", "systemCallFilter", CONFIG_KEY_BOOL, "true", FIELD(system_call_filter),
	 .of_machine = true},
	{"wsl2", "autoMemoryReclaim", CONFIG_KEY_OWN, "gradual", .set = set_reclaim,
	 .of_machine = true, .takes = "disabled, gradual or dropCache"},
	{"wsl2", "debugConsole", CONFIG_KEY_WITHOUT_MEANING, ""},
	{"wsl2", "defaultVersion", CONFIG_KEY_UNSIGNED, "auto", FIELD(default_version), .max = 3},
	{"wsl2", "defaultVhdSize", CONFIG_KEY_BYTES, "1TB", FIELD(default_disk_bytes)},
	{"wsl2", "DistributionListUrl", CONFIG_KEY_TEXT, "the list that comes with pillion",
	 FIELD(distribution_list_url)},
	{"wsl2", "DistributionListUrlAppend", CONFIG_KEY_TEXT, "",
	 FIELD(distribution_list_url_append)},
	{"wsl2", "gpuSupport", CONFIG_KEY_WITHOUT_MEANING, ""},
	{"wsl2", "guiApplications", CONFIG_KEY_WITHOUT_MEANING, ""},
	{"wsl2", "kernel", CONFIG_KEY_TEXT, "trixie", FIELD(kernel), .of_machine = true},
	{"wsl2", "kernelCommandLine", CONFIG_KEY_TEXT, "", FIELD(kernel_command_line),
	 .of_machine = true},
	{"wsl2", "localhostForwarding", CONFIG_KEY_BOOL, "true", FIELD(localhost_forwarding),
	 .of_machine = true},
	{"wsl2", "memory", CONFIG_KEY_BYTES, "half the host's", FIELD(memory_bytes),
	 .of_machine = true},
	{"wsl2", "nestedVirtualization", CONFIG_KEY_BOOL, "false", FIELD(nested_virtualization),
	 .of_machine = true},
	{"wsl2", "networkingMode", CONFIG_KEY_OWN, "nat", .set = set_network, .of_machine = true,
	 .takes = "nat or none"},
	{"wsl2", "processors", CONFIG_KEY_UNSIGNED, "all the host's", FIELD(processors),
	 .max = 4096, .of_machine = true},
	{"wsl2", "share", CONFIG_KEY_OWN, "", .set = set_share, .clear = clear_shares,
	 .of_machine = true,
	 .takes = "the absolute path of a folder, with :rw at its end if machines may write to it; "
		  "at most 7 folders, whose last parts all differ, each of at most 200 bytes"},
	{"wsl2", "swap", CONFIG_KEY_OWN, "a quarter of the memory", .set = set_swap,
	 .of_machine = true, .takes = "a size, such as 512M or 4GB; 0: none"},
	{"wsl2", "swapFile", CONFIG_KEY_WITHOUT_MEANING, ""},
	{"wsl2", "vmIdleTimeout", CONFIG_KEY_OWN, "60000", .set = set_timeout, .of_machine = true,
	 .takes = "milliseconds; -1: never"},
};
const int config_num_keys = ARRAY_SIZE(config_keys);

static bool apply(struct config *c, const struct config_key *key, const char *value)
{
	void *field = (char *)c + key->field;

	switch (key->kind) {
	case CONFIG_KEY_BOOL:
		return set_bool(field, value);
	case CONFIG_KEY_BYTES:
		return str_to_bytes(value, field);
	case CONFIG_KEY_OWN:
		return key->set(c, value);
	case CONFIG_KEY_TEXT:
		return set_text(field, value);
	case CONFIG_KEY_UNSIGNED:
		return set_unsigned(field, value, key->max);
	case CONFIG_KEY_WITHOUT_MEANING:
		return true;
	}
	return false;
}

struct reading {
	struct config *config;
	bool of_machine;              /* the file is a machine's own */
	bool cleared[64];             /* keys of this file whose older values are gone */
	char wrong[160];              /* the setting it stopped at */
	const struct config_key *key; /* its key */
	bool stopped;                 /* inih goes on reading after it */
};
static_assert(ARRAY_SIZE(config_keys) <= 64, "reading.cleared");

/* inih's handler: 0 stops with this line's number. */
static int set_key(void *user, const char *section, const char *name, const char *value)
{
	struct reading *r = user;

	if (r->stopped)
		return 0;
	r->key = NULL;
	snprintf(r->wrong, sizeof(r->wrong), "%.40s = %.100s", name, value);
	if (!strcasecmp(section, "pillion")) /* for those who find [wsl2] odd here */
		section = "wsl2";
	for (int i = 0; i < config_num_keys; i++) {
		const struct config_key *key = &config_keys[i];

		if (strcasecmp(section, key->section) || strcasecmp(name, key->name))
			continue;
		r->key = key;
		if (key->clear && !r->cleared[i])
			key->clear(r->config);
		r->cleared[i] = true;
		r->stopped = (r->of_machine && !key->of_machine) || !apply(r->config, key, value);
		return !r->stopped;
	}
	log_warn("config: unknown key %s in section [%s] is ignored", name, section);
	return 1;
}

static void hint_at(const struct config_key *key, bool of_machine, struct pil_err *err)
{
	static const char *const takes[] = {
		[CONFIG_KEY_BOOL] = "true or false",
		[CONFIG_KEY_BYTES] = "a size, such as 512M or 4GB",
	};
	const char *what = key ? key->takes : NULL;

	if (key && !what && key->kind < ARRAY_SIZE(takes))
		what = takes[key->kind];
	if (key && of_machine && !key->of_machine)
		pil_err_hint(err,
			     "%s is one for all machines: set it in section [%s] of "
			     "~/.config/pillion/config",
			     key->name, key->section);
	else if (key && key->kind == CONFIG_KEY_UNSIGNED)
		pil_err_hint(err, "%s takes a number up to %u", key->name, key->max);
	else if (what)
		pil_err_hint(err, "%s takes %s", key->name, what);
	else
		pil_err_hint(err, "mend or remove that line; man pillion-config lists the keys and "
				  "their values");
}

int config_key_check(const struct config_key *key, const char *value, struct pil_err *err)
{
	struct config scratch = {0};
	char safe[256];
	bool ok = key->of_machine && apply(&scratch, key, value);

	config_finish(&scratch);
	if (ok)
		return 0;
	hint_at(key, true, err);
	if (!key->of_machine)
		return pil_err_say(err, EINVAL, "%s cannot be set for one machine", key->name);
	return pil_err_say(err, EINVAL, "%s: '%s' is not a valid value", key->name,
			   str_escape(safe, sizeof(safe), value));
}

/* Line @n of the file @path; heap.  NULL: it cannot be read. */
static char *line_of(const char *path, int n)
{
	_auto_free char *text = NULL;
	char *line;

	if (pil_read_file(path, MAX_FILE_BYTES, &text) < 0)
		return NULL;
	for (line = text; --n > 0 && strchr(line, '\n');)
		line = strchr(line, '\n') + 1;
	return str_printf("%.*s", (int)strcspn(line, "\n"), line);
}

/* What @line of @path is wrong with. */
static int refuse(const struct reading *r, const char *path, int line, struct pil_err *err)
{
	_auto_free char *text = line_of(path, line);
	char safe[4 * sizeof(r->wrong)];

	if (text && !strpbrk(text, "=:")) { /* inih names the first line that is wrong */
		pil_err_hint(err, "begin it with # if it is a comment, or remove it");
		return pil_err_say(err, EINVAL,
				   "config '%s' line %d: neither [SECTION] nor KEY = VALUE: %.160s",
				   path, line, str_escape(safe, sizeof(safe), text));
	}
	hint_at(r->stopped ? r->key : NULL, r->of_machine, err);
	return pil_err_say(err, EINVAL, "config '%s' line %d: not a valid setting: %s", path, line,
			   str_escape(safe, sizeof(safe), r->stopped || !text ? r->wrong : text));
}

/* A file that is not there is no fault; one that cannot be read is. */
static int find_file(const char *path, bool *there, struct pil_err *err)
{
	struct stat st;
	int code = stat(path, &st) ? errno : S_ISDIR(st.st_mode) ? EISDIR : 0;

	*there = !code;
	if (!code || code == ENOENT || code == ENOTDIR)
		return 0;
	pil_err_hint(err, "ls -ld '%s' shows what it is and who may read it", path);
	return pil_err_set(err, code, "read config '%s'", path);
}

static int load_file(struct config *config, const char *path, bool of_machine, struct pil_err *err)
{
	struct reading reading = {.config = config, .of_machine = of_machine};
	bool there;
	int ret = find_file(path, &there, err);
	int line = !ret && there ? ini_parse(path, set_key, &reading) : 0;

	if (!ret && line < 0) {
		pil_err_hint(err, "chmod u+r '%s'", path);
		ret = pil_err_set(err, errno ? errno : EIO, "read config '%s'", path);
	} else if (line > 0) {
		ret = refuse(&reading, path, line, err);
	}
	if (ret)
		config_finish(config);
	return ret;
}

int config_load(struct config *config, const char *path, struct pil_err *err)
{
	*config = (struct config){.vm_idle_timeout_ms = 60000,
				  .weight = 100,
				  .localhost_forwarding = true,
				  .system_call_filter = true,
				  .default_disk_bytes = 1ull << 40,
				  .auto_memory_reclaim = INIT_RECLAIM_GRADUAL};
	return load_file(config, path, false, err);
}

char *config_machine_path(const struct state_dirs *dirs, const char *distro)
{
	return str_printf("%s/distros/%s/machine.conf", dirs->data, distro);
}

int config_load_machine(struct config *config, const struct state_dirs *dirs, const char *distro,
			struct pil_err *err)
{
	_auto_free char *user = str_printf("%s/config", dirs->config);
	_auto_free char *own = config_machine_path(dirs, distro);
	int ret = config_load(config, user, err);

	return ret ? ret : load_file(config, own, true, err);
}

int config_check(const char *path, struct pil_err *err)
{
	struct config config;
	int ret = config_load(&config, path, err);

	if (!ret)
		config_finish(&config);
	return ret;
}

int config_check_machine(const char *path, struct pil_err *err)
{
	struct config config;
	int ret = config_load(&config, "", err);

	if (!ret)
		ret = load_file(&config, path, true, err);
	if (!ret)
		config_finish(&config);
	return ret;
}

void config_finish(struct config *config)
{
	clear_env(config);
	clear_shares(config);
	for (int i = 0; i < config_num_keys; i++)
		if (config_keys[i].kind == CONFIG_KEY_TEXT)
			free(*(char **)((char *)config + config_keys[i].field));
	*config = (struct config){0};
}
