/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists and archives lie in cache/downloads: a list under a name of its own, an archive under its
 * SHA-256, so that equal ones of several lists are one, and no other one is ever taken for it. */
#include "tree/catalog.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "config/config.h"
#include "tree/fetch.h"

enum { LOCK_MS = 60 * 60 * 1000 };

#define MAX_ARCHIVE_BYTES (UINT64_C(64) << 30)

static int lock_downloads(const struct state_dirs *dirs, struct pil_err *err)
{
	_auto_free char *folder = str_printf("%s/downloads", dirs->cache);
	_auto_free char *path = str_printf("%s/lock", folder);
	int ret = path_mkdirs(folder, 0700);

	return ret ? pil_err_set(err, -ret, "make folder '%s'", folder)
		   : state_lock_patiently(path, "another pillion downloads something", LOCK_MS,
					  err);
}

static bool is_file(const char *url)
{
	return !strncasecmp(url, "file:", 5);
}

/* A list from elsewhere has no business with the files of this computer. */
static int refuse_files(const struct manifest *list, const char *url, struct pil_err *err)
{
	for (size_t i = 0; !is_file(url) && i < list->n; i++)
		if (list->v[i].url && is_file(list->v[i].url))
			return pil_err_say(err, EBADMSG,
					   "'%s' has the address of a file of this computer, which "
					   "only a list that is such a file may name",
					   list->v[i].name);
	return 0;
}

static int load_list(struct manifest *out, const struct state_dirs *dirs, const char *url,
		     struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/downloads/list-%d.json", dirs->cache, (int)getpid());
	_auto_free char *text = NULL;
	struct fetch f = {.url = url,
			  .title = "the list of distributions",
			  .max_bytes = MANIFEST_MAX_BYTES};
	_auto_fd int lock_fd = -1;
	ssize_t len;
	int ret;

	if (!manifest_is_url(url)) {
		pil_err_hint(err, "DistributionListUrl takes https://, http:// or file:///");
		return pil_err_say(err, EINVAL, "list of distributions: '%.200s' is no address",
				   url);
	}
	lock_fd = lock_downloads(dirs, err);
	ret = lock_fd < 0 ? lock_fd : fetch_file(&f, path, err);
	if (ret)
		return ret;
	len = pil_read_file(path, MANIFEST_MAX_BYTES, &text);
	unlink(path);
	if (len < 0)
		return pil_err_set(err, (int)-len, "read '%s'", path);
	ret = manifest_parse(out, text, (size_t)len, manifest_arch(), err);
	if (!ret) {
		ret = refuse_files(out, url, err);
		if (ret)
			manifest_finish(out);
	}
	return ret ? pil_err_prefix(err, "%.150s", url) : 0;
}

int catalog_load(struct catalog *out, const struct state_dirs *dirs, const struct config *config,
		 struct pil_err *err)
{
	int ret;

	*out = (struct catalog){0};
	if (config->distribution_list_url)
		ret = load_list(&out->main, dirs, config->distribution_list_url, err);
	else
		ret = manifest_parse(&out->main, manifest_builtin, manifest_builtin_bytes,
				     manifest_arch(), err);
	if (!ret && config->distribution_list_url_append)
		ret = load_list(&out->append, dirs, config->distribution_list_url_append, err);
	if (ret)
		catalog_finish(out);
	return ret;
}

void catalog_finish(struct catalog *c)
{
	manifest_finish(&c->append);
	manifest_finish(&c->main);
}

const struct manifest_entry *catalog_find(const struct catalog *c, const char *name)
{
	const struct manifest_entry *e = manifest_find(&c->append, name);

	return e ? e : manifest_find(&c->main, name);
}

char *catalog_fetch(const struct state_dirs *dirs, const struct manifest_entry *entry,
		    struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/downloads/%s", dirs->cache, entry->sha256);
	struct fetch f = {.url = entry->url,
			  .title = entry->friendly,
			  .sha256 = entry->sha256,
			  .max_bytes = MAX_ARCHIVE_BYTES};
	_auto_fd int lock_fd = lock_downloads(dirs, err);

	if (lock_fd < 0 || fetch_file(&f, path, err))
		return NULL;
	return pil_take_ptr(&path);
}
