/* SPDX-License-Identifier: Apache-2.0
 *
 * One table says how each option of pillion-init is called, what it takes and where it is kept;
 * writing and reading go through it, so that both ends know the same options. */
#include "agent/init_options.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/compiler.h"
#include "base/proc.h"
#include "base/str.h"

enum kind {
	FLAG,   /* bool */
	NUMBER, /* int, not negative */
	TEXT,
	TEXTS,   /* may be given .max times */
	RECLAIM, /* enum init_reclaim by name */
};

#define AT(member) offsetof(struct init_options, member)

static const struct init_option {
	const char *name;
	enum kind kind;
	size_t at;
	int max;
} options[] = {
	{"--distro", TEXT, AT(distro), 0},
	{"--entered-fd", NUMBER, AT(entered_fd), 0},
	{"--env", TEXTS, AT(env), INIT_MAX_ENV},
	{"--forward", FLAG, AT(forward), 0},
	{"--forward-fd", NUMBER, AT(forward_fd), 0},
	{"--go-fd", NUMBER, AT(go_fd), 0},
	{"--idle-ms", NUMBER, AT(idle_ms), 0},
	{"--life-fd", NUMBER, AT(life_fd), 0},
	{"--listen-fd", NUMBER, AT(listen_fd), 0},
	{"--mount", TEXTS, AT(mounts), INIT_MAX_MOUNTS},
	{"--net", TEXT, AT(net), 0},
	{"--no-devices", FLAG, AT(no_devices), 0},
	{"--ready-fd", NUMBER, AT(ready_fd), 0},
	{"--reclaim", RECLAIM, AT(reclaim), 0},
	{"--resolv-conf", TEXT, AT(resolv_conf), 0},
	{"--swap", FLAG, AT(swap), 0},
	{"--token", TEXT, AT(token), 0},
	{"--user", TEXT, AT(user), 0},
};

const char *const init_reclaim_str[] = {[INIT_RECLAIM_DISABLED] = "disabled",
					[INIT_RECLAIM_GRADUAL] = "gradual",
					[INIT_RECLAIM_DROP_CACHE] = "dropCache",
					[INIT_NUM_RECLAIMS] = NULL};
static_assert(ARRAY_SIZE(init_reclaim_str) == INIT_NUM_RECLAIMS + 1, "init_reclaim_str");

void init_options_begin(struct init_options *o)
{
	*o = (struct init_options){0};
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (options[i].kind == NUMBER)
			*(int *)((char *)o + options[i].at) = -1;
}

static void add_valued(struct argv *a, const char *name, const char *value)
{
	argv_add(a, name);
	argv_add(a, value);
}

static void add(struct argv *a, const struct init_option *option, const void *field)
{
	const char *const *texts = field;
	int number = 0;

	switch (option->kind) {
	case FLAG:
		if (*(const bool *)field)
			argv_add(a, option->name);
		break;
	case NUMBER:
		number = *(const int *)field;
		if (number < 0)
			break;
		argv_add(a, option->name);
		argv_addf(a, "%d", number);
		break;
	case RECLAIM:
		number = *(const int *)field;
		if (number != INIT_RECLAIM_DISABLED)
			add_valued(a, option->name, init_reclaim_str[number]);
		break;
	case TEXT:
		if (*texts)
			add_valued(a, option->name, *texts);
		break;
	case TEXTS:
		for (; *texts; texts++)
			add_valued(a, option->name, *texts);
	}
}

void init_options_add(struct argv *a, const struct init_options *o)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		add(a, &options[i], (const char *)o + options[i].at);
}

static bool add_text(const char **texts, int max, const char *value)
{
	int n = 0;

	while (texts[n])
		n++;
	if (n == max)
		return false;
	texts[n] = value;
	return true;
}

static bool set(const struct init_option *option, void *field, const char *value)
{
	uint64_t number;

	switch (option->kind) {
	case FLAG:
		*(bool *)field = true;
		return true;
	case NUMBER:
		if (!str_to_u64(value, INT32_MAX, &number))
			return false;
		*(int *)field = (int)number;
		return true;
	case RECLAIM:
		for (int i = 0; i < INIT_NUM_RECLAIMS; i++)
			if (!strcmp(value, init_reclaim_str[i])) {
				*(int *)field = i;
				return true;
			}
		return false;
	case TEXT:
		*(const char **)field = value;
		return true;
	case TEXTS:
		return add_text(field, option->max, value);
	}
	return false;
}

static const struct init_option *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (!strcmp(options[i].name, name))
			return &options[i];
	return NULL;
}

bool init_options_parse(int argc, char **argv, struct init_options *o)
{
	init_options_begin(o);
	for (int i = 1; i < argc; i++) {
		const struct init_option *option = find(argv[i]);
		bool valued = option && option->kind != FLAG;

		if (!option || (valued && i + 1 == argc))
			return false;
		if (!set(option, (char *)o + option->at, valued ? argv[++i] : ""))
			return false;
	}
	return o->distro != NULL;
}
