/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads WSL's list of distributions.  It comes from the network, and its addresses and hashes
 * decide what is run here: what is not exactly as the format says is refused as a whole. */
#include "tree/manifest.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <jansson.h>

#include "base/compiler.h"

enum { MAX_URL_BYTES = 2048, MAX_FRIENDLY_BYTES = 128 };

struct reading {
	struct manifest *out;
	const char *arch;
	const char *flavor;
	struct pil_err *err;
};

const char *manifest_arch(void)
{
#if defined(__aarch64__)
	return "arm64";
#else
	return "amd64";
#endif
}

void manifest_finish(struct manifest *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->v[i].friendly);
		free(m->v[i].url);
	}
	free(m->v);
	*m = (struct manifest){0};
}

static int bad(const struct reading *r, const char *where, const char *what)
{
	char safe[2 * STR_MAX_NAME];

	return pil_err_say(r->err, EBADMSG, "list of distributions: '%s': %s",
			   str_escape(safe, sizeof(safe), where ? where : "?"), what);
}

/* -EBADMSG: @object has a key that is not in @known. */
static int check_keys(const struct reading *r, const char *where, json_t *object,
		      const char *const *known)
{
	const char *key;
	json_t *value;

	if (!json_is_object(object))
		return bad(r, where, "not an object");
	json_object_foreach(object, key, value)
	{
		const char *const *k = known;

		while (*k && strcmp(*k, key) != 0)
			k++;
		if (!*k)
			return bad(r, key, "an unknown key");
	}
	return 0;
}

bool manifest_is_url(const char *text)
{
	static const char *const schemes[] = {"https://", "http://", "file:///"};
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		known = known || !strncasecmp(text, schemes[i], strlen(schemes[i]));
	for (const char *p = text; *p; p++)
		if (*p <= ' ' || *p >= 0x7f || strchr("\"\\<>^`{|}", *p))
			return false;
	return known && strlen(text) <= MAX_URL_BYTES;
}

/* 64 hex digits, after "0x" or not; stores them in lower case. */
static bool take_hash(const char *text, char *out)
{
	if (!strncasecmp(text, "0x", 2))
		text += 2;
	if (strlen(text) != MANIFEST_HEX || strspn(text, "0123456789abcdefABCDEF") != MANIFEST_HEX)
		return false;
	for (size_t i = 0; i <= MANIFEST_HEX; i++)
		out[i] = text[i] >= 'A' && text[i] <= 'F' ? (char)(text[i] + 32) : text[i];
	return true;
}

/* {Url, Sha256}; kept if it is @wanted's. */
static int take_address(const struct reading *r, const char *name, json_t *object, bool wanted,
			struct manifest_entry *e)
{
	static const char *const known[] = {"Url", "Sha256", NULL};
	const char *url, *hash;
	char hex[MANIFEST_HEX + 1];
	int ret;

	if (!object)
		return 0;
	ret = check_keys(r, name, object, known);
	if (ret)
		return ret;
	url = json_string_value(json_object_get(object, "Url"));
	hash = json_string_value(json_object_get(object, "Sha256"));
	if (!url || !manifest_is_url(url))
		return bad(r, name, "no address of http, https or file");
	if (!hash || !take_hash(hash, hex))
		return bad(r, name, "no SHA-256 of 64 hex digits");
	if (wanted) {
		e->url = str_printf("%s", url);
		memcpy(e->sha256, hex, sizeof(hex));
	}
	return 0;
}

static int take_names(const struct reading *r, json_t *object, struct manifest_entry *e)
{
	const char *name = json_string_value(json_object_get(object, "Name"));
	const char *friendly = json_string_value(json_object_get(object, "FriendlyName"));

	if (!name || !str_is_name(name))
		return bad(r, name ? name : r->flavor, "not a name");
	if (strncasecmp(name, r->flavor, strlen(r->flavor)) != 0)
		return bad(r, name, "a name that does not begin with its flavor");
	for (size_t i = 0; i < r->out->n; i++)
		if (!strcasecmp(r->out->v[i].name, name))
			return bad(r, name, "a name that is there twice");
	if (!friendly || !friendly[0] || strlen(friendly) > MAX_FRIENDLY_BYTES)
		return bad(r, name, "no FriendlyName");
	snprintf(e->name, sizeof(e->name), "%s", name);
	snprintf(e->flavor, sizeof(e->flavor), "%s", r->flavor);
	e->friendly = str_printf("%s", friendly);
	str_blank_controls(e->friendly);
	return 0;
}

/* One distribution.  Those of another architecture are checked, and kept without an address. */
static int take_entry(const struct reading *r, json_t *object, struct manifest_entry *e)
{
	static const char *const known[] = {"Name",     "FriendlyName", "Default",
					    "Amd64Url", "Arm64Url",     NULL};
	json_t *is_default = json_object_get(object, "Default");
	json_t *amd64 = json_object_get(object, "Amd64Url");
	json_t *arm64 = json_object_get(object, "Arm64Url");
	int ret = check_keys(r, r->flavor, object, known);

	if (!ret)
		ret = take_names(r, object, e);
	if (!ret && !json_is_boolean(is_default))
		ret = bad(r, e->name, "no Default");
	if (!ret && !amd64 && !arm64)
		ret = bad(r, e->name, "no address");
	if (!ret)
		ret = take_address(r, e->name, amd64, !strcmp(r->arch, "amd64"), e);
	if (!ret)
		ret = take_address(r, e->name, arm64, !strcmp(r->arch, "arm64"), e);
	e->is_default = json_is_true(is_default);
	return ret;
}

static int take_flavor(struct reading *r, const char *flavor, json_t *list)
{
	int defaults = 0, ret = 0;
	json_t *object;
	size_t i;

	r->flavor = flavor;
	if (!str_is_name(flavor))
		return bad(r, flavor, "not a name");
	if (!json_is_array(list) || json_array_size(list) == 0)
		return bad(r, flavor, "no list");
	json_array_foreach(list, i, object)
	{
		struct manifest_entry *e = &r->out->v[r->out->n];

		assert(r->out->v);
		if (r->out->n == MANIFEST_MAX)
			return bad(r, flavor, "too many distributions");
		ret = take_entry(r, object, e);
		r->out->n++; /* what it holds is freed with the others */
		if (ret)
			return ret;
		defaults += e->is_default;
	}
	return defaults == 1 ? 0 : bad(r, flavor, "exactly one must be the Default");
}

/* Those without an address are of another architecture. */
static void drop_others(struct manifest *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n; i++) {
		if (m->v[i].url)
			m->v[n++] = m->v[i];
		else
			free(m->v[i].friendly);
	}
	m->n = n;
}

static int take_all(struct reading *r, json_t *root)
{
	static const char *const known[] = {"ModernDistributions", "Default", "Distributions",
					    NULL};
	json_t *modern = json_object_get(root, "ModernDistributions");
	json_t *chosen = json_object_get(root, "Default");
	json_t *older = json_object_get(root, "Distributions");
	int ret = check_keys(r, "the list", root, known);
	const char *flavor;
	json_t *list;

	if (ret)
		return ret;
	if ((modern && !json_is_object(modern)) || (older && !json_is_array(older)))
		return bad(r, "ModernDistributions, Distributions", "not of their kind");
	json_object_foreach(modern, flavor, list)
	{
		ret = take_flavor(r, flavor, list);
		if (ret)
			return ret;
	}
	if (!chosen || json_is_null(chosen))
		return 0;
	if (!json_is_string(chosen) || !str_is_name(json_string_value(chosen)))
		return bad(r, "Default", "not a name");
	snprintf(r->out->default_flavor, sizeof(r->out->default_flavor), "%s",
		 json_string_value(chosen));
	return 0;
}

int manifest_parse(struct manifest *out, const char *text, size_t len, const char *arch,
		   struct pil_err *err)
{
	struct reading r = {.out = out, .arch = arch, .err = err};
	json_error_t why;
	json_auto_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	char safe[200];
	int ret;

	*out = (struct manifest){0};
	if (!root)
		return pil_err_say(err, EBADMSG, "list of distributions, line %d: %s", why.line,
				   str_escape(safe, sizeof(safe), why.text));
	out->v = calloc(MANIFEST_MAX, sizeof(*out->v));
	if (!out->v)
		return pil_err_set(err, ENOMEM, "list of distributions");
	ret = take_all(&r, root);
	if (ret)
		manifest_finish(out);
	else
		drop_others(out);
	return ret;
}

const struct manifest_entry *manifest_find(const struct manifest *m, const char *name)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->v[i].is_default && !strcasecmp(m->v[i].flavor, name))
			return &m->v[i];
	for (size_t i = 0; i < m->n; i++)
		if (!strcasecmp(m->v[i].name, name))
			return &m->v[i];
	return NULL;
}
