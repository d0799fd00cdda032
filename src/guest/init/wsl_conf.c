/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: one table has every key that WSL knows.  Those with a field are honoured.
 * The others are measured by whether anything is missing: a value that asks for what happens anyway
 * passes in silence, so that a wsl.conf brought along from Windows does, and any other is
 * complained of. */
#include "guest/init/wsl_conf.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/fd.h"
#include "base/str.h"

enum key_kind { KEY_UNSUPPORTED, KEY_BOOL, KEY_NAME, KEY_TEXT };

struct key {
	const char *section, *name;
	enum key_kind kind;
	size_t offset, size; /* of the field of struct wsl_conf */
	const char *met[2];  /* unsupported: the values that ask for nothing more */
};

#define FIELD(member) offsetof(struct wsl_conf, member), sizeof(((struct wsl_conf *)0)->member)

static const struct key keys[] = {
	{"automount", "cgroups", .met = {"v2"}},
	{"automount", "enabled", .met = {"true"}},
	{"automount", "ldconfig", .met = {"true"}},
	{"automount", "mountFsTab", .met = {"false"}},
	{"automount", "options"},
	{"automount", "root", .met = {"/mnt", "/mnt/"}},
	{"boot", "command", KEY_TEXT, FIELD(boot_command)},
	{"boot", "initTimeout", .met = {"10000"}},
	{"boot", "protectBinfmt", .met = {"true", "false"}},
	{"boot", "systemd", .met = {"false"}},
	{"fileServer", "enabled", .met = {"true", "false"}},
	{"fileServer", "logFile"},
	{"fileServer", "logLevel"},
	{"fileServer", "logTruncate"},
	{"filesystem", "umask", .met = {"022", "0022"}},
	{"general", "guiApplications", .met = {"false"}},
	{"general", "hostname"},
	{"gpu", "appendLibPath", KEY_BOOL, FIELD(gpu_append_lib_path)},
	{"gpu", "enabled", KEY_BOOL, FIELD(gpu_enabled)},
	{"interop", "appendWindowsPath", .met = {"true", "false"}},
	{"interop", "enabled", .met = {"true", "false"}},
	{"network", "generateHosts", KEY_BOOL, FIELD(generate_hosts)},
	{"network", "generateResolvConf", KEY_BOOL, FIELD(generate_resolv)},
	{"network", "hostname", KEY_NAME, FIELD(hostname)},
	{"time", "useWindowsTimezone", .met = {"true", "false"}},
	{"user", "default", KEY_TEXT, FIELD(default_user)},
};

/* ---- values ---- */

static char *trim(char *s)
{
	char *end;

	while (isspace((unsigned char)*s))
		s++;
	end = s + strlen(s);
	while (end > s && isspace((unsigned char)end[-1]))
		*--end = '\0';
	return s;
}

/* The word for a value that may be written in several ways. */
static const char *canonical(const char *value)
{
	if (!strcasecmp(value, "true") || !strcmp(value, "1"))
		return "true";
	if (!strcasecmp(value, "false") || !strcmp(value, "0"))
		return "false";
	return value;
}

static bool is_met(const struct key *key, const char *value)
{
	bool met = !value[0];

	for (size_t i = 0; i < ARRAY_SIZE(key->met); i++)
		met = met || (key->met[i] && !strcmp(key->met[i], canonical(value)));
	return met;
}

/* False: the field cannot hold that value. */
static bool store(const struct key *key, const char *value, void *field)
{
	bool is_true = !strcmp(canonical(value), "true");

	if (key->kind == KEY_BOOL) {
		if (!is_true && strcmp(canonical(value), "false"))
			return false;
		*(bool *)field = is_true;
		return true;
	}
	if (strlen(value) >= key->size || (key->kind == KEY_NAME && !str_is_name(value)))
		return false;
	strcpy(field, value);
	return true;
}

/* ---- lines ---- */

/* What does not fit is left out. */
static void complain(struct wsl_conf *c, const char *section, const char *name, const char *value,
		     const char *what)
{
	_auto_free char *said = str_printf("[%.40s] %.40s=%.60s %s", section, name, value, what);
	char line[512];
	size_t len = strlen(c->complaints);

	str_escape(line, sizeof(line), said);
	if (strlen(line) + 2 <= sizeof(c->complaints) - len)
		snprintf(c->complaints + len, sizeof(c->complaints) - len, "%s\n", line);
}

static void set_key(struct wsl_conf *c, const char *section, const char *name, const char *value)
{
	const struct key *key = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(keys) && !key; i++)
		if (!strcasecmp(keys[i].section, section) && !strcasecmp(keys[i].name, name))
			key = &keys[i];
	if (!key)
		complain(c, section, name, value, "is unknown and ignored");
	else if (key->kind == KEY_UNSUPPORTED && !is_met(key, value))
		complain(c, section, name, value, "is not supported and has no effect");
	else if (key->kind != KEY_UNSUPPORTED && !store(key, value, (char *)c + key->offset))
		complain(c, section, name, value, "cannot be used");
}

void wsl_conf_parse(const char *text, struct wsl_conf *out)
{
	_auto_free char *copy = strdup(text);
	char *section = (char *)"", *save = NULL;

	*out = (struct wsl_conf){.gpu_enabled = true,
				 .gpu_append_lib_path = true,
				 .generate_hosts = true,
				 .generate_resolv = true};
	for (char *line = copy ? strtok_r(copy, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *equals, *close;

		line = trim(line);
		if (line[0] == '#' || line[0] == ';')
			continue;
		if (line[0] == '[' && (close = strchr(line, ']'))) {
			*close = '\0';
			section = trim(line + 1);
		} else if ((equals = strchr(line, '='))) {
			*equals = '\0';
			set_key(out, section, trim(line), trim(equals + 1));
		}
	}
}
