/* SPDX-License-Identifier: Apache-2.0
 *
 * oci.h -- what the JSON files of a container image say: those of an OCI layout (image-spec 1.1:
 * image-layout.md, image-index.md, manifest.md, config.md), and those of `docker save`.
 *
 * No I/O: each function takes the text of one file, which is not trusted. */
#ifndef PIL_OCI_H
#define PIL_OCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

enum { OCI_MAX_LAYERS = 256, OCI_MAX_ENV = 64, OCI_HEX = 64, OCI_MAX_TEXT = 4 << 20 };

struct oci_blob {
	char hex[OCI_HEX + 1]; /* its SHA-256; "": unknown */
	char path[256];        /* below the image's folder */
	uint64_t bytes;        /* UINT64_MAX: unknown */
};

struct oci_image {
	struct oci_blob config;
	struct oci_blob layers[OCI_MAX_LAYERS]; /* lowest first */
	int n_layers;
};

struct oci_config {
	char user[65];     /* "NAME", "UID", each with ":GROUP" or not; "": root */
	char workdir[256]; /* "": none */
	char *env[OCI_MAX_ENV];
	int n_env;
};

/* Which manifest index.json means: the one with @tag (NULL: the only one, or "latest"), or in a
 * nested index the one for linux on @arch ("amd64").  @nested: it is an index in turn. */
int oci_parse_index(const char *text, size_t len, const char *tag, const char *arch,
		    struct oci_blob *out, bool *nested, struct pil_err *err) PIL_MUST_CHECK;

int oci_parse_manifest(const char *text, size_t len, struct oci_image *out,
		       struct pil_err *err) PIL_MUST_CHECK;

/* manifest.json of `docker save`: the image with @tag (NULL: the first). */
int oci_parse_docker(const char *text, size_t len, const char *tag, struct oci_image *out,
		     struct pil_err *err) PIL_MUST_CHECK;

/* The image's configuration.  The caller calls oci_config_finish(), after a failure too. */
int oci_parse_config(const char *text, size_t len, struct oci_config *out,
		     struct pil_err *err) PIL_MUST_CHECK;
void oci_config_finish(struct oci_config *config);

#endif
