/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a kit is whole when its stamp, written last, holds its recipe's key.  It is
 * made in NAME.part, which an interrupted call leaves for the next one to remove, and then changes
 * places with the old one by one system call: who starts a machine meanwhile finds the one or the
 * other.  The packages it is made of are noted in it (packages); a kit without that list, as they
 * were once, is as good as any until the newest is asked for. */
#include "kit/kit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "tree/tree.h"

enum { MAX_LIST_BYTES = 1 << 20 };

bool kit_is_whole(const struct kit *kit)
{
	_auto_free char *stamp = str_printf("%s/stamp", kit->dir);
	_auto_free char *rootfs = str_printf("%s/rootfs", kit->dir);
	_auto_free char *text = NULL;
	char key[9];

	recipe_key(kit->recipe, key);
	return pil_read_file(stamp, 64, &text) > 0 && !strcmp(text, key) && path_exists(rootfs);
}

static bool is_made_of(const struct kit *kit, const char *packages)
{
	_auto_free char *path = str_printf("%s/packages", kit->dir);
	_auto_free char *text = NULL;

	return pil_read_file(path, MAX_LIST_BYTES, &text) >= 0 && !strcmp(text, packages);
}

static int make(const struct state_dirs *dirs, const struct kit *kit, const char *part,
		const char *packages, struct pil_err *err)
{
	_auto_free char *stamp = str_printf("%s/stamp", part);
	char key[9];
	int ret = tree_install_of(dirs, kit->recipe, part, packages, err);

	if (!ret && kit->finish)
		ret = kit->finish(part, err);
	recipe_key(kit->recipe, key);
	if (!ret && (ret = pil_write_file(stamp, 0600, key, strlen(key))))
		pil_err_set(err, -ret, "write '%s'", stamp);
	return ret;
}

/* Puts @part in the place of @dir; what was there is kept as the one to go back to. */
static int put_in_place(const char *part, const char *dir, struct pil_err *err)
{
	_auto_free char *last = str_printf("%s" KIT_LAST, dir);
	int ret = path_exists(dir) ? tree_remove(last, err) : 0;

	if (!ret)
		ret = tree_swap(part, dir, err);
	if (!ret && path_exists(part) && rename(part, last)) /* it can be made anew */
		log_dbg("'%s' is not kept: %s", last, strerror(errno));
	return ret;
}

int kit_ensure(const struct state_dirs *dirs, const struct kit *kit, enum kit_wish wish,
	       struct pil_err *err)
{
	_auto_free char *part = str_printf("%s.part", kit->dir);
	_auto_free char *stamp = str_printf("%s/stamp", kit->dir);
	_auto_free char *packages = NULL;
	bool whole = kit_is_whole(kit), renewed = path_exists(stamp);
	int ret;

	if (whole && wish == KIT_THERE)
		return KIT_KEPT;
	if (wish == KIT_NEWEST || !tree_has_archive(dirs, kit->recipe)) {
		packages = tree_packages(dirs, kit->recipe, err);
		if (!packages)
			return err->code ? -err->code : -EIO;
	}
	if (whole && packages && is_made_of(kit, packages))
		return KIT_KEPT;
	ret = tree_remove(part, err);
	if (!ret)
		ret = make(dirs, kit, part, packages, err);
	if (!ret)
		ret = put_in_place(part, kit->dir, err);
	if (tree_remove(part, NULL))
		log_dbg("'%s' is left behind; the next try removes it", part);
	return ret ? ret : renewed ? KIT_RENEWED : KIT_MADE;
}

int kit_roll_back(const struct state_dirs *dirs, struct pil_err *err)
{
	_auto_free char *folder = str_printf("%s/kits", dirs->data);
	DIR *list = opendir(folder);
	struct dirent *e;
	int n = 0, ret = 0;

	while (list && !ret && (e = readdir(list))) {
		size_t len = strlen(e->d_name), end = strlen(KIT_LAST);
		_auto_free char *last = str_printf("%s/%s", folder, e->d_name);
		_auto_free char *stamp = str_printf("%s/stamp", last);
		_auto_free char *dir = NULL;

		if (len <= end || strcmp(e->d_name + len - end, KIT_LAST) != 0 ||
		    !path_exists(stamp))
			continue;
		dir = str_printf("%s/%.*s", folder, (int)(len - end), e->d_name);
		ret = tree_swap(last, dir, err);
		n += ret == 0;
	}
	if (list)
		closedir(list);
	return ret ? ret : n;
}

char *kit_packaged(const struct kit *kit)
{
	_auto_free char *path = str_printf("%s/packages", kit->dir);
	int name_bytes = (int)strcspn(kit->recipe->packages, ",");
	_auto_free char *start = str_printf("%.*s ", name_bytes, kit->recipe->packages);
	_auto_free char *text = NULL;
	char *rest;

	if (pil_read_file(path, MAX_LIST_BYTES, &text) < 0)
		return NULL;
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		if (!strncmp(line, start, strlen(start)))
			return strdup(line);
	return NULL;
}
