/* SPDX-License-Identifier: Apache-2.0
 *
 * source.h -- what a distribution can be made of. */
#ifndef PIL_SOURCE_H
#define PIL_SOURCE_H

#include "base/compiler.h"
#include "base/err.h"

struct distro;
struct install;
struct recipe;

enum source_kind {
	SOURCE_RECIPE,        /* packages */
	SOURCE_ARCHIVE,       /* a file: tar, or that compressed; "-": standard input */
	SOURCE_DISK,          /* a file: a raw ext4 image, which is copied */
	SOURCE_DISK_THERE,    /* the same, used where it lies */
	SOURCE_OCI,           /* a folder: an OCI layout */
	SOURCE_IMAGE_ARCHIVE, /* a file: that layout, or what `docker save` makes, in a tar */
	SOURCE_REGISTRY,      /* a name that skopeo(1) fetches: "docker://NAME" */
};

struct source {
	enum source_kind kind;
	const struct recipe *recipe;
	char *path; /* heap */
	char *tag;  /* of an image; heap, NULL: the only one */
};

/* "oci:FOLDER[:TAG]", "oci-archive:FILE[:TAG]", "docker-archive:FILE[:TAG]", "docker://NAME", or
 * the name of an archive.  The caller calls source_finish(). */
int source_parse(struct source *out, const char *text, struct pil_err *err) PIL_MUST_CHECK;
void source_finish(struct source *s);

/* install.h's .make, whose .source is a struct source. */
int source_make(const struct install *i, const char *dir, struct distro *distro,
		struct pil_err *err) PIL_MUST_CHECK;

#endif
