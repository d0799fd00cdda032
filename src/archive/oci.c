/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads the JSON of container images.  What is read is checked where it is taken: a digest is
 * SHA-256 and 64 hex digits, a path stays below the image's folder, numbers and lists have limits.
 * Keys that are not known are ignored, as the specification asks for. */
#include "archive/oci.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "archive/extract.h"
#include "base/fd.h"
#include "base/str.h"

#define REF_NAME "org.opencontainers.image.ref.name"

static json_t *load(const char *text, size_t len, const char *what, struct pil_err *err)
{
	json_error_t why;
	json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);
	char safe[200];

	if (!root)
		pil_err_say(err, EBADMSG, "%s of the image, line %d: %s", what, why.line,
			    str_escape(safe, sizeof(safe), why.text));
	return root;
}

static int bad(struct pil_err *err, const char *what)
{
	return pil_err_say(err, EBADMSG, "the image: %s", what);
}

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static bool is_hex(const char *text)
{
	return strlen(text) == OCI_HEX && strspn(text, "0123456789abcdef") == OCI_HEX;
}

/* A descriptor: {digest, size, ...}. */
static int take_blob(const json_t *descriptor, struct oci_blob *out, struct pil_err *err)
{
	const char *digest = text_of(descriptor, "digest");
	json_int_t size = json_integer_value(json_object_get(descriptor, "size"));

	if (!digest || strncmp(digest, "sha256:", 7) != 0 || !is_hex(digest + 7))
		return bad(err, "a digest that is not SHA-256");
	if (size <= 0)
		return bad(err, "a part without a size");
	snprintf(out->hex, sizeof(out->hex), "%s", digest + 7);
	snprintf(out->path, sizeof(out->path), "blobs/sha256/%s", out->hex);
	out->bytes = (uint64_t)size;
	return 0;
}

/* Is it one for linux on @arch, as far as it says so? */
static bool fits(const json_t *descriptor, const char *arch)
{
	const json_t *platform = json_object_get(descriptor, "platform");
	const char *os = text_of(platform, "os"), *its = text_of(platform, "architecture");

	return (!os || !strcmp(os, "linux")) && (!its || !strcmp(its, arch));
}

static bool has_tag(const json_t *descriptor, const char *tag)
{
	const char *name = text_of(json_object_get(descriptor, "annotations"), REF_NAME);

	return name && !strcmp(name, tag);
}

/* NULL: none, or not to be told which. */
static const json_t *choose(const json_t *list, const char *tag, const char *arch)
{
	const json_t *found = NULL, *entry;
	size_t i, n = 0;

	json_array_foreach(list, i, entry)
	{
		if (!fits(entry, arch) || (tag && !has_tag(entry, tag)))
			continue;
		if (!n++ || has_tag(entry, "latest"))
			found = entry;
	}
	return n == 1 || (found && has_tag(found, "latest")) || (n && tag) ? found : NULL;
}

int oci_parse_index(const char *text, size_t len, const char *tag, const char *arch,
		    struct oci_blob *out, bool *nested, struct pil_err *err)
{
	json_auto_t *root = load(text, len, "index.json", err);
	const json_t *list = json_object_get(root, "manifests"), *one;
	const char *type;
	char safe[100];

	if (!root)
		return -EBADMSG;
	if (!json_is_array(list))
		return bad(err, "index.json lists no manifests");
	one = choose(list, tag, arch);
	if (!one && tag)
		return pil_err_say(err, ENOENT, "the image has no tag '%s' for linux on %s",
				   str_escape(safe, sizeof(safe), tag), arch);
	if (!one) {
		pil_err_hint(err, "name one of its tags: oci:FOLDER:TAG");
		return pil_err_say(err, ENOENT,
				   "the folder has none or several images for linux on %s", arch);
	}
	type = text_of(one, "mediaType");
	*nested = type && (!strcmp(type, "application/vnd.oci.image.index.v1+json") ||
			   !strcmp(type, "application/vnd.docker.distribution.manifest.list.v2+"
					 "json"));
	return take_blob(one, out, err);
}

static bool is_layer(const char *type)
{
	static const char *const known[] = {"application/vnd.oci.image.layer.",
					    "application/vnd.docker.image.rootfs."};

	if (strstr(type, "encrypted"))
		return false;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strncmp(type, known[i], strlen(known[i])))
			return true;
	return false;
}

int oci_parse_manifest(const char *text, size_t len, struct oci_image *out, struct pil_err *err)
{
	json_auto_t *root = load(text, len, "the manifest", err);
	const json_t *layers = json_object_get(root, "layers"), *layer;
	size_t i;
	int ret;

	*out = (struct oci_image){0};
	if (!root)
		return -EBADMSG;
	ret = take_blob(json_object_get(root, "config"), &out->config, err);
	if (ret)
		return ret;
	if (!json_is_array(layers) || json_array_size(layers) > OCI_MAX_LAYERS)
		return bad(err, "no layers, or too many");
	json_array_foreach(layers, i, layer)
	{
		const char *type = text_of(layer, "mediaType");

		if (!type || !is_layer(type))
			return bad(err, "a layer of an unknown kind");
		ret = take_blob(layer, &out->layers[out->n_layers++], err);
		if (ret)
			return ret;
	}
	return 0;
}

/* A file of `docker save`, by its path there. */
static int take_path(const char *path, struct oci_blob *out, struct pil_err *err)
{
	char clean[sizeof(out->path)];

	if (!path || strlen(path) >= sizeof(clean) || !extract_clean_path(path, clean) || !clean[0])
		return bad(err, "manifest.json names no file, or one outside");
	*out = (struct oci_blob){.bytes = UINT64_MAX};
	snprintf(out->path, sizeof(out->path), "%s", clean);
	return 0;
}

/* "NAME:TAG" ends with @tag, or is it. */
static bool is_tagged(const json_t *image, const char *tag)
{
	const json_t *name;
	size_t i;

	json_array_foreach(json_object_get(image, "RepoTags"), i, name)
	{
		const char *text = json_string_value(name);
		const char *colon = text ? strrchr(text, ':') : NULL;

		if (text && (!strcmp(text, tag) || (colon && !strcmp(colon + 1, tag))))
			return true;
	}
	return false;
}

int oci_parse_docker(const char *text, size_t len, const char *tag, struct oci_image *out,
		     struct pil_err *err)
{
	json_auto_t *root = load(text, len, "manifest.json", err);
	const json_t *image = NULL, *entry, *layers, *layer;
	char safe[100];
	size_t i;
	int ret;

	*out = (struct oci_image){0};
	if (!root)
		return -EBADMSG;
	json_array_foreach(root, i, entry) if (!image && (!tag || is_tagged(entry, tag))) image =
		entry;
	if (!image)
		return pil_err_say(err, ENOENT, "the archive has no image '%s'",
				   str_escape(safe, sizeof(safe), tag ? tag : ""));
	ret = take_path(text_of(image, "Config"), &out->config, err);
	layers = json_object_get(image, "Layers");
	if (!ret && (!json_is_array(layers) || json_array_size(layers) > OCI_MAX_LAYERS))
		ret = bad(err, "no layers, or too many");
	if (ret)
		return ret;
	json_array_foreach(layers, i, layer)
	{
		ret = take_path(json_string_value(layer), &out->layers[out->n_layers++], err);
		if (ret)
			return ret;
	}
	return 0;
}

/* ---- the configuration ---- */

static bool is_plain(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

/* Copies a text that has no control characters, if there is one. */
static bool take_text(const json_t *object, const char *key, char *out, size_t size)
{
	const char *text = text_of(object, key);

	if (!text)
		return true;
	snprintf(out, size, "%s", text);
	return strlen(text) < size && is_plain(text);
}

int oci_parse_config(const char *text, size_t len, struct oci_config *out, struct pil_err *err)
{
	json_auto_t *root = load(text, len, "the configuration", err);
	const json_t *config = json_object_get(root, "config"), *env;
	size_t i;

	*out = (struct oci_config){0};
	if (!root)
		return -EBADMSG;
	if (!take_text(config, "User", out->user, sizeof(out->user)) ||
	    !take_text(config, "WorkingDir", out->workdir, sizeof(out->workdir)) ||
	    (out->workdir[0] && out->workdir[0] != '/'))
		return bad(err, "a user or a folder to work in that cannot be");
	json_array_foreach(json_object_get(config, "Env"), i, env)
	{
		const char *value = json_string_value(env);

		if (!value || !strchr(value, '=') || value[0] == '=' || !is_plain(value) ||
		    strlen(value) > 4096 || out->n_env == OCI_MAX_ENV)
			return bad(err, "an environment that cannot be");
		out->env[out->n_env++] = str_printf("%s", value);
	}
	return 0;
}

void oci_config_finish(struct oci_config *config)
{
	while (config->n_env)
		free(config->env[--config->n_env]);
	*config = (struct oci_config){0};
}
