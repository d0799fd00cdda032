/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: one table (keys) says for each key which section it stands in, what it
 * takes, which kind of machine has it and where it is kept.  Writing and reading both follow it, so
 * that what one end writes the other knows.  `environment` and `shares`, whose keys are names and
 * whose values are many, are the two that have functions of their own.
 *
 * Who writes a spec is the user, or a program of the user's: a spec can name any folder that the
 * user could mount.  It is read strictly all the same, so that a mistake is told and not guessed
 * at: no unknown key, no duplicate, nothing without effect. */
#include "machine/spec.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <jansson.h>

#include "agent/exposed.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/str.h"

enum { READ_MS = 10000, MAX_PATH_BYTES = 4095, MAX_TEXT_BYTES = 2048 };

enum kind {
	BOOL,
	INTEGER, /* int64_t, from .min to .max; .min stands for "not given" where it is below 0 */
	CHOICE,  /* int, one of .choices */
	NETWORK, /* bool, as "nat" or "none" */
	NAME,
	PATH,  /* absolute */
	PLACE, /* PATH that is whole: what pillion mounts a folder on */
	TEXT,
	VERSION, /* SPEC_VERSION; kept nowhere */
};

enum of { ALL, SANDBOX, MICROVM };

struct key {
	const char *section, *name;
	enum kind kind;
	size_t at;
	enum of of;
	int64_t min, max;
	const char *const *choices;
	bool needed;
};

#define SPEC(member)  offsetof(struct machine_spec, member)
#define SHARE(member) offsetof(struct machine_share, member)

static_assert(sizeof(((struct machine_spec *)0)->env) == sizeof(((struct init_options *)0)->env),
	      "spec_init_options");

static const struct key keys[] = {
	{"", "version", VERSION, 0, .needed = true},
	{"", "name", NAME, SPEC(name), .needed = true},
	{"", "user", TEXT, SPEC(user)},
	{"", "idleTimeout", INTEGER, SPEC(idle_ms), .min = -1, .max = INT32_MAX},
	{"root", "folder", PATH, SPEC(folder), SANDBOX},
	{"root", "disk", PATH, SPEC(disk), MICROVM},
	{"root", "lock", PATH, SPEC(lock)},
	{"devices", "accelerators", BOOL, SPEC(accelerators)},
	{"limits", "memory", INTEGER, SPEC(memory_bytes), .max = INT64_MAX},
	{"limits", "processes", INTEGER, SPEC(processes), SANDBOX, .max = INT32_MAX},
	{"limits", "processors", INTEGER, SPEC(processors), MICROVM, .max = 4096},
	{"limits", "swap", INTEGER, SPEC(swap_bytes), MICROVM, .min = -1, .max = INT64_MAX},
	{"network", "mode", NETWORK, SPEC(network)},
	{"network", "forwardPorts", BOOL, SPEC(forward_ports)},
	{"network", "hostLoopback", BOOL, SPEC(host_loopback)},
	{"sandbox", "systemCallFilter", BOOL, SPEC(system_call_filter), SANDBOX},
	{"microvm", "kernel", TEXT, SPEC(kernel), MICROVM},
	{"microvm", "kernelCommandLine", TEXT, SPEC(kernel_options), MICROVM},
	{"microvm", "nestedVirtualization", BOOL, SPEC(nested), MICROVM},
	{"microvm", "memoryReclaim", CHOICE, SPEC(reclaim), MICROVM, .choices = init_reclaim_str},
};

static const struct key share_keys[] = {
	{"shares", "source", PATH, SHARE(host), .needed = true},
	{"shares", "target", PLACE, SHARE(guest), .needed = true},
	{"shares", "writable", BOOL, SHARE(writable)},
	{"shares", "direct", BOOL, SHARE(direct)},
	{"shares", "refuseSockets", BOOL, SHARE(plain)},
	{"shares", "required", BOOL, SHARE(needed)},
};

void spec_begin(struct machine_spec *spec)
{
	*spec = (struct machine_spec){.idle_ms = -1,
				      .accelerators = true,
				      .swap_bytes = -1,
				      .network = true,
				      .system_call_filter = true,
				      .reclaim = INIT_RECLAIM_GRADUAL};
}

static void share_finish(struct machine_share *share)
{
	free(share->host);
	free(share->guest);
}

void spec_finish(struct machine_spec *spec)
{
	for (int i = 0; i < spec->n_shares; i++)
		share_finish(&spec->shares[i]);
	for (char **e = spec->env; *e; e++)
		free(*e);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].kind == NAME || keys[i].kind == PATH || keys[i].kind == TEXT)
			free(*(char **)((char *)spec + keys[i].at));
	*spec = (struct machine_spec){0};
}

void spec_keys(void (*each)(const char *key, void *arg), void *arg)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys) + ARRAY_SIZE(share_keys); i++) {
		const struct key *key =
			i < ARRAY_SIZE(keys) ? &keys[i] : &share_keys[i - ARRAY_SIZE(keys)];
		_auto_free char *name =
			str_printf("%s%s%s", key->section, key->section[0] ? "." : "", key->name);

		each(name, arg);
	}
	each("environment", arg);
}

void spec_init_options(const struct machine_spec *spec, struct init_options *o)
{
	init_options_begin(o);
	o->distro = spec->name;
	o->user = spec->user;
	o->idle_ms = spec->idle_ms < 0 ? -1 : (int)spec->idle_ms;
	o->no_devices = !spec->accelerators;
	memcpy(o->env, spec->env, sizeof(o->env));
}

/* ---- writing ---- */

static json_t *value_of(const struct key *key, const void *base)
{
	const void *field = (const char *)base + key->at;
	const char *text;

	switch (key->kind) {
	case BOOL:
		return json_boolean(*(const bool *)field);
	case CHOICE:
		return json_string(key->choices[*(const int *)field]);
	case INTEGER:
		return json_integer(*(const int64_t *)field);
	case NETWORK:
		return json_string(*(const bool *)field ? "nat" : "none");
	case VERSION:
		return json_integer(SPEC_VERSION);
	default:
		memcpy(&text, field, sizeof(text));
		return text ? json_string(text) : json_null();
	}
}

/* The section of @key, made if need be; borrowed. */
static json_t *section_of(json_t *root, const struct key *key)
{
	json_t *section = key->section[0] ? json_object_get(root, key->section) : root;

	if (!section) {
		section = json_object();
		if (json_object_set_new(root, key->section, section))
			return NULL;
	}
	return section;
}

/* Strings that are not there are left out. */
static bool put(json_t *object, const struct key *key, const void *base)
{
	json_t *value = value_of(key, base);

	if (json_is_null(value))
		return true;
	return json_object_set_new(object, key->name, value) == 0;
}

static bool put_shares(json_t *root, const struct machine_spec *spec)
{
	json_t *list = json_array();
	bool ok = json_object_set_new(root, "shares", list) == 0;

	for (int i = 0; ok && i < spec->n_shares; i++) {
		json_t *share = json_object();

		ok = json_array_append_new(list, share) == 0;
		for (size_t k = 0; ok && k < ARRAY_SIZE(share_keys); k++)
			ok = put(share, &share_keys[k], &spec->shares[i]);
	}
	return ok;
}

static bool put_environment(json_t *root, const struct machine_spec *spec)
{
	json_t *object = json_object();
	bool ok = json_object_set_new(root, "environment", object) == 0;

	for (char *const *e = spec->env; ok && *e; e++) {
		const char *value = strchr(*e, '=') + 1;
		_auto_free char *name = str_printf("%.*s", (int)(value - *e - 1), *e);

		ok = json_object_set_new(object, name, json_string(value)) == 0;
	}
	return ok;
}

char *spec_write(const struct machine_spec *spec, struct pil_err *err)
{
	enum of of = spec->disk ? MICROVM : SANDBOX;
	json_auto_t *root = json_object();
	bool ok = root != NULL;
	char *text;

	for (size_t i = 0; ok && i < ARRAY_SIZE(keys); i++) {
		if (keys[i].of != ALL && keys[i].of != of)
			continue;
		ok = put(section_of(root, &keys[i]), &keys[i], spec);
		if (!ok)
			pil_err_say(err, EILSEQ, "the machine's %s%s%s is not UTF-8",
				    keys[i].section, keys[i].section[0] ? "." : "", keys[i].name);
	}
	ok = ok && put_environment(root, spec) && put_shares(root, spec);
	text = ok ? json_dumps(root, JSON_INDENT(1)) : NULL;
	if (!text && err && !err->code)
		pil_err_say(err, EILSEQ,
			    "a folder that the machine is to see has a name that is "
			    "not UTF-8");
	return text;
}

int spec_open(const struct machine_spec *spec, struct pil_err *err)
{
	_auto_free char *text = spec_write(spec, err);
	_auto_fd int fd = -1;
	int ret;

	if (!text)
		return -EILSEQ;
	fd = memfd_create("pillion-machine-spec", MFD_CLOEXEC);
	ret = fd < 0 ? -errno : pil_write_all(fd, text, strlen(text));
	if (!ret && lseek(fd, 0, SEEK_SET))
		ret = -errno;
	return ret ? pil_err_set(err, -ret, "describe the machine") : pil_take_fd(&fd);
}

/* ---- reading ---- */

/* Where in the text: a section and a key in it, as they were written. */
struct where {
	const char *section, *name;
};

static int refuse(const struct where *at, struct pil_err *err, const char *why)
{
	char section[100], name[200];

	pil_err_hint(err, "docs/machine-spec.md lists the keys and what they take");
	return pil_err_say(err, EINVAL, "machine spec: %s%s%s: %s",
			   str_escape(section, sizeof(section), at->section),
			   at->section[0] && at->name[0] ? "." : "",
			   str_escape(name, sizeof(name), at->name), why);
}

static bool is_text(const char *text, size_t max)
{
	size_t len = strlen(text);

	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return false;
	return len > 0 && len <= max;
}

/* Is @path @folder, or below it? */
static bool lies_in(const char *path, const char *folder)
{
	size_t len = strlen(folder);

	return !strncmp(path, folder, len) && (path[len] == '/' || path[len] == '\0');
}

/* A path without empty, "." and ".." parts or a slash at its end, which is none of the folders that
 * pillion itself mounts, nor on their way, nor, where they are not for others, in one. */
static bool is_place(const char *path)
{
	static const struct {
		const char *folder;
		bool open; /* others may be in it */
	} own[] = {
		{"/dev", false},      {"/proc", false},     {"/sys", false},
		{EXPOSED_DIR, false}, {EXPOSED_WSL, false}, {EXPOSED_RUN, false},
		{"/run", true},       {"/tmp", true},       {EXPOSED_HOST_FOLDERS, true},
	};
	const char *end;

	if (path[0] != '/' || strchr(path, ':')) /* a field of --mount TAG:PATH:ro */
		return false;
	for (const char *part = path + 1;; part = end + 1) {
		size_t len = strcspn(part, "/");

		if (len == 0 || (len <= 2 && !strncmp(part, "..", len)))
			return false;
		end = part + len;
		if (*end == '\0')
			break;
	}
	for (size_t i = 0; i < ARRAY_SIZE(own); i++)
		if (lies_in(own[i].folder, path) || (!own[i].open && lies_in(path, own[i].folder)))
			return false;
	return true;
}

static int set_text(const struct key *key, char **field, const char *text, const struct where *at,
		    struct pil_err *err)
{
	const char *takes = NULL;

	if (!text)
		takes = "takes a string";
	else if (key->kind == NAME && !str_is_name(text))
		takes = "takes 1 to 64 letters, digits, dots, dashes and underscores, of which the "
			"first is a letter or digit";
	else if (key->kind == TEXT && !is_text(text, MAX_TEXT_BYTES))
		takes = "takes 1 to 2048 bytes without control characters";
	else if (key->kind == PATH && (text[0] != '/' || strlen(text) > MAX_PATH_BYTES))
		takes = "takes an absolute path";
	else if (key->kind == PLACE && (!is_text(text, MAX_PATH_BYTES) || !is_place(text)))
		takes = "takes an absolute path without '..' or ':' that is not a folder of "
			"pillion's own, such as /data or " EXPOSED_HOST_FOLDERS "/NAME";
	if (takes)
		return refuse(at, err, takes);
	*field = strdup(text);
	return *field ? 0 : -ENOMEM;
}

static int set_integer(const struct key *key, int64_t *field, const json_t *value,
		       const struct where *at, struct pil_err *err)
{
	int64_t number = json_integer_value(value);
	_auto_free char *takes = str_printf("takes a whole number from %lld to %lld",
					    (long long)key->min, (long long)key->max);

	if (!json_is_integer(value) || number < key->min || number > key->max)
		return refuse(at, err, takes);
	*field = number;
	return 0;
}

static int set_choice(const struct key *key, int *field, const char *text, const struct where *at,
		      struct pil_err *err)
{
	for (int i = 0; text && key->choices[i]; i++)
		if (!strcmp(text, key->choices[i])) {
			*field = i;
			return 0;
		}
	return refuse(at, err, "is not one of its choices");
}

static int set(const struct key *key, void *base, const json_t *value, const struct where *at,
	       struct pil_err *err)
{
	void *field = (char *)base + key->at;
	const char *text = json_string_value(value);

	switch (key->kind) {
	case BOOL:
		*(bool *)field = json_is_true(value);
		return json_is_boolean(value) ? 0 : refuse(at, err, "takes true or false");
	case CHOICE:
		return set_choice(key, field, text, at, err);
	case INTEGER:
		return set_integer(key, field, value, at, err);
	case NETWORK:
		*(bool *)field = text && !strcmp(text, "nat");
		return text && (!strcmp(text, "nat") || !strcmp(text, "none"))
			       ? 0
			       : refuse(at, err, "takes \"nat\" or \"none\"");
	case VERSION:
		return json_is_integer(value) && json_integer_value(value) == SPEC_VERSION
			       ? 0
			       : refuse(at, err, "this pillion knows version 1");
	default:
		return set_text(key, field, text, at, err);
	}
}

/* Which key of @table is meant; NULL: none. */
static const struct key *find(const struct key *table, size_t n, const struct where *at)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(table[i].section, at->section) && !strcmp(table[i].name, at->name))
			return &table[i];
	return NULL;
}

/* All keys of @object, which are those of @section in @table; @base gets their values. */
static int read_object(json_t *object, const char *section, const struct key *table, size_t n,
		       void *base, struct pil_err *err)
{
	struct where at = {section, ""};
	json_t *value;
	int ret = 0;

	if (!json_is_object(object))
		return refuse(&at, err, "takes an object");
	json_object_foreach(object, at.name, value)
	{
		const struct key *key = find(table, n, &at);

		ret = key ? set(key, base, value, &at, err) : refuse(&at, err, "unknown key");
		if (ret)
			return ret;
	}
	for (size_t i = 0; i < n; i++) {
		at.name = table[i].name;
		if (table[i].needed && !strcmp(table[i].section, section) &&
		    !json_object_get(object, table[i].name))
			return refuse(&at, err, "is missing");
	}
	return 0;
}

static int read_share(struct machine_spec *spec, json_t *value, struct pil_err *err)
{
	const struct where at = {"shares", "target"};
	struct machine_share *share = &spec->shares[spec->n_shares++];
	int ret = read_object(value, "shares", share_keys, ARRAY_SIZE(share_keys), share, err);

	if (ret)
		return ret;
	for (int i = 0; i < spec->n_shares - 1; i++)
		if (lies_in(spec->shares[i].guest, share->guest) ||
		    lies_in(share->guest, spec->shares[i].guest))
			return refuse(&at, err, "lies in that of another share");
	return 0;
}

static int read_shares(struct machine_spec *spec, json_t *list, struct pil_err *err)
{
	const struct where at = {"shares", ""};
	size_t n = json_array_size(list);
	int ret = 0;

	if (!json_is_array(list) || n > SPEC_MAX_SHARES)
		return refuse(&at, err, "takes a list of at most 8 folders");
	for (size_t i = 0; i < n && !ret; i++)
		ret = read_share(spec, json_array_get(list, i), err);
	return ret;
}

static int read_environment(struct machine_spec *spec, json_t *object, struct pil_err *err)
{
	struct where at = {"environment", ""};
	size_t n = 0, bytes = 0;
	json_t *value;

	if (!json_is_object(object) || json_object_size(object) > SPEC_MAX_ENV)
		return refuse(&at, err, "takes an object of at most 64 strings");
	json_object_foreach(object, at.name, value)
	{
		if (!at.name[0] || strchr(at.name, '='))
			return refuse(&at, err, "is not the name of a variable");
		if (!json_is_string(value))
			return refuse(&at, err, "takes a string");
		bytes += strlen(at.name) + json_string_length(value);
		if (bytes > SPEC_MAX_ENV_BYTES)
			return refuse(&at, err, "all variables together have more than 16 KiB");
		spec->env[n++] = str_printf("%s=%s", at.name, json_string_value(value));
	}
	return 0;
}

/* A key of the top; or a section, whose keys are read. */
static int read_top(struct machine_spec *spec, const char *name, json_t *value, struct pil_err *err)
{
	const struct where at = {"", name};
	const struct key *key = find(keys, ARRAY_SIZE(keys), &at);

	if (key)
		return set(key, spec, value, &at, err);
	if (!strcmp(name, "shares"))
		return read_shares(spec, value, err);
	if (!strcmp(name, "environment"))
		return read_environment(spec, value, err);
	for (size_t i = 0; i < ARRAY_SIZE(keys) && name[0]; i++)
		if (!strcmp(keys[i].section, name))
			return read_object(value, name, keys, ARRAY_SIZE(keys), spec, err);
	return refuse(&at, err, "unknown key");
}

/* What the parts are right in but the whole is not. */
static int check_whole(const struct machine_spec *spec, json_t *root, struct pil_err *err)
{
	enum of of = spec->disk ? MICROVM : SANDBOX;

	if (!spec->folder == !spec->disk)
		return refuse(&(struct where){"root", ""}, err,
			      "takes \"folder\" for a sandbox or \"disk\" for a microVM");
	for (int i = 0; of == SANDBOX && i < spec->n_shares; i++) {
		const struct machine_share *share = &spec->shares[i];

		if ((share->writable || share->plain) && !share->direct)
			return refuse(&(struct where){"shares", "direct"}, err,
				      "a sandbox needs it for writable and refuseSockets");
	}
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const struct key *key = &keys[i];
		const struct where at = {key->section, key->name};
		json_t *object = key->section[0] ? json_object_get(root, key->section) : root;
		bool there = json_object_get(object, key->name) != NULL;

		if (there && key->of != ALL && key->of != of)
			return refuse(&at, err,
				      of == MICROVM ? "a microVM has no such thing"
						    : "a sandbox has no such thing");
		if (!there && key->needed)
			return refuse(&at, err, "is missing");
	}
	return 0;
}

int spec_parse(struct machine_spec *spec, const char *text, size_t len, struct pil_err *err)
{
	json_error_t wrong = {0};
	json_auto_t *root = NULL;
	const char *name;
	json_t *value;
	char safe[200];
	int ret = 0;

	spec_begin(spec);
	if (len > SPEC_MAX_BYTES)
		return pil_err_say(err, EINVAL, "machine spec: more than 64 KiB");
	root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &wrong);
	if (!json_is_object(root))
		return pil_err_say(err, EINVAL, "machine spec: line %d: %s", wrong.line,
				   root ? "not an object"
					: str_escape(safe, sizeof(safe), wrong.text));
	json_object_foreach(root, name, value)
	{
		ret = read_top(spec, name, value, err);
		if (ret)
			break;
	}
	if (!ret)
		ret = check_whole(spec, root, err);
	if (ret)
		spec_finish(spec);
	return ret;
}

int spec_read(struct machine_spec *spec, int fd, struct pil_err *err)
{
	int64_t due_ms = clock_now_ms() + READ_MS;
	_auto_free char *text = malloc(SPEC_MAX_BYTES + 1);
	size_t len = 0;

	if (!text)
		return pil_err_set(err, ENOMEM, "read the machine spec");
	while (len <= SPEC_MAX_BYTES) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left_ms = due_ms - clock_now_ms();
		ssize_t n;

		if (left_ms <= 0 || poll(&p, 1, (int)left_ms) == 0)
			return pil_err_set(err, ETIMEDOUT, "read the machine spec");
		n = read(fd, text + len, SPEC_MAX_BYTES + 1 - len);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return pil_err_set(err, errno, "read the machine spec from descriptor %d",
					   fd);
		if (n == 0)
			break;
		len += n > 0 ? (size_t)n : 0;
	}
	return spec_parse(spec, text, len, err);
}
