/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a snapshot is a folder snapshots/TAG with a tree or a disk and
 * snapshot.json. It is made as snapshots/.new and renamed.  Restoring makes a copy of it beside the
 * tree or disk and lets the two change places by one system call; where the snapshot has the other
 * form, the registry says which of the two counts, as with --set-version.  A distribution is moved
 * by making it anew in the other folder; then distros/NAME, a folder or a link, changes places with
 * a link to there, and what it was is removed. */
#include "disk/copies.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "disk/form.h"
#include "disk/image.h"
#include "disk/install.h"
#include "port/userns.h"
#include "tree/archive.h"
#include "tree/copy.h"
#include "tree/tree.h"

#define NOTE "snapshot.json"

enum { MAX_JSON = 64 << 10, MAX_SNAPSHOTS = 1024 };

int copies_copy_form(const char *from, const char *to, unsigned version, bool running,
		     struct pil_err *err)
{
	const char *name = version == 2 ? IMAGE_NAME : "rootfs";
	_auto_free char *source = str_printf("%s/%s", from, name);
	_auto_free char *copy = str_printf("%s/%s", to, name);
	_auto_fd int disk_fd = -1;

	if (version != 2)
		return copy_tree(source, copy, err);
	if (!running && (disk_fd = image_open(source, err)) < 0)
		return disk_fd;
	return copy_disk(source, copy, err);
}

int copies_copy_notes(const char *from, const char *to, struct pil_err *err)
{
	static const char *const names[] = {"machine.conf", ARCHIVE_TOLD_NAME, "packages"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_auto_free char *source = str_printf("%s/%s", from, names[i]);
		_auto_free char *copy = str_printf("%s/%s", to, names[i]);
		_auto_free char *text = NULL;
		ssize_t n = pil_read_file(source, 1 << 20, &text);
		int ret = n < 0 ? 0 : pil_write_file(copy, 0600, text, (size_t)n);

		if (ret)
			return pil_err_set(err, -ret, "write '%s'", copy);
	}
	return 0;
}

/* ---- snapshots ---- */

static char *folder_of(const struct state_dirs *dirs, const struct distro *distro, const char *tag)
{
	return str_printf("%s/distros/%s/snapshots/%s", dirs->data, distro->name, tag);
}

bool copies_parse(const char *text, size_t len, struct snapshot *out)
{
	json_auto_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	json_int_t made = 0;
	int version = 0, uid = 0;

	if (!root ||
	    json_unpack(root, "{s:i, s:i, s:I}", "version", &version, "defaultUid", &uid, "made",
			&made) ||
	    version < 1 || version > 2 || uid < 0 || uid >= 65534 || made < 0)
		return false;
	out->version = (unsigned)version;
	out->default_uid = (unsigned)uid;
	out->made = made;
	return true;
}

static int load(const struct state_dirs *dirs, const struct distro *distro, const char *tag,
		struct snapshot *out)
{
	_auto_free char *folder = folder_of(dirs, distro, tag);
	_auto_free char *path = str_printf("%s/" NOTE, folder);
	_auto_free char *text = NULL;
	ssize_t n = str_is_name(tag) ? pil_read_file(path, MAX_JSON, &text) : -ENOENT;

	*out = (struct snapshot){0};
	if (n < 0)
		return (int)n;
	snprintf(out->tag, sizeof(out->tag), "%s", tag);
	return copies_parse(text, (size_t)n, out) ? 0 : -EINVAL;
}

static int write_note(const char *folder, const struct distro *distro, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/" NOTE, folder);
	json_auto_t *root =
		json_pack("{s:i, s:i, s:I}", "version", (int)distro->version, "defaultUid",
			  (int)distro->default_uid, "made", (json_int_t)time(NULL));
	_auto_free char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	int ret = text ? pil_write_file(path, 0600, text, strlen(text)) : -ENOMEM;

	return ret ? pil_err_set(err, -ret, "write '%s'", path) : 0;
}

int copies_snapshot(const struct state_dirs *dirs, const struct distro *distro, const char *tag,
		    bool running, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/distros/%s", dirs->data, distro->name);
	_auto_free char *made = folder_of(dirs, distro, ".new");
	_auto_free char *folder = folder_of(dirs, distro, tag);
	int ret;

	if (!str_is_name(tag))
		return pil_err_say(err, EINVAL,
				   "snapshot '%s': a tag is 1 to 64 letters, digits, '.', '_' or "
				   "'-'",
				   tag);
	if (path_exists(folder)) {
		pil_err_hint(err, "pillion --snapshot %s --delete %s removes it", distro->name,
			     tag);
		return pil_err_say(err, EEXIST, "snapshot '%s': there is one already", tag);
	}
	ret = tree_remove(made, err);
	if (!ret && (ret = path_mkdirs(made, 0700)))
		pil_err_set(err, -ret, "make folder '%s'", made);
	if (!ret)
		ret = copies_copy_form(dir, made, distro->version, running, err);
	if (!ret)
		ret = write_note(made, distro, err);
	if (!ret && rename(made, folder))
		ret = pil_err_set(err, errno, "make '%s'", folder);
	if (ret && tree_remove(made, NULL))
		log_dbg("'%s' is left behind; the next snapshot removes it", made);
	return ret;
}

static int not_there(const struct distro *distro, const char *tag, struct pil_err *err)
{
	pil_err_hint(err, "pillion --list --snapshots shows those that are there");
	return pil_err_say(err, ENOENT, "'%s' has no snapshot '%.64s'", distro->name, tag);
}

int copies_snapshot_remove(const struct state_dirs *dirs, const struct distro *distro,
			   const char *tag, struct pil_err *err)
{
	_auto_free char *folder = folder_of(dirs, distro, tag);
	_auto_free char *note = str_printf("%s/" NOTE, folder);

	if (!str_is_name(tag) || !path_exists(folder))
		return not_there(distro, tag, err);
	unlink(note); /* from here on it is none */
	return tree_remove(folder, err);
}

static int by_tag(const void *a, const void *b)
{
	return strcmp(((const struct snapshot *)a)->tag, ((const struct snapshot *)b)->tag);
}

int copies_list(const struct state_dirs *dirs, const struct distro *distro, struct snapshot **out,
		struct pil_err *err)
{
	_auto_free char *path = folder_of(dirs, distro, "");
	_auto_free struct snapshot *list = calloc(MAX_SNAPSHOTS, sizeof(*list));
	DIR *dir = list ? opendir(path) : NULL;
	struct dirent *e;
	int n = 0;

	if (!list)
		return pil_err_set(err, ENOMEM, "list snapshots");
	while (dir && n < MAX_SNAPSHOTS && (e = readdir(dir)))
		n += load(dirs, distro, e->d_name, &list[n]) == 0;
	if (dir)
		closedir(dir);
	qsort(list, (size_t)n, sizeof(*list), by_tag);
	*out = pil_take_ptr(&list);
	return n;
}

/* ---- and back ---- */

/* Puts a copy of the tree in @folder in the place of @dir/rootfs, if there is one. */
static int restore_tree(const char *folder, const char *dir, struct pil_err *err)
{
	_auto_free char *from = str_printf("%s/rootfs", folder);
	_auto_free char *part = str_printf("%s/rootfs.part", dir);
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	int ret = userns_remove_tree(part, err);

	if (!ret)
		ret = copy_tree(from, part, err);
	if (!ret)
		ret = tree_swap(part, rootfs, err);
	if (userns_remove_tree(part, NULL))
		log_dbg("'%s' is left behind; the next one removes it", part);
	return ret;
}

static int restore_disk(const char *folder, const char *dir, struct pil_err *err)
{
	_auto_free char *from = str_printf("%s/" IMAGE_NAME, folder);
	_auto_free char *part = str_printf("%s/" IMAGE_NAME ".part", dir);
	_auto_free char *disk = str_printf("%s/" IMAGE_NAME, dir);
	int ret = copy_disk(from, part, err);

	if (!ret && rename(part, disk))
		ret = pil_err_set(err, errno, "move '%s'", part);
	if (ret)
		unlink(part);
	return ret;
}

int copies_restore(const struct state_dirs *dirs, struct distro *distro, const char *tag,
		   struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/distros/%s", dirs->data, distro->name);
	_auto_free char *folder = folder_of(dirs, distro, tag);
	struct snapshot s;
	int ret;

	if (load(dirs, distro, tag, &s))
		return not_there(distro, tag, err);
	ret = s.version == 2 ? restore_disk(folder, dir, err) : restore_tree(folder, dir, err);
	if (ret)
		return ret;
	distro->version = s.version;
	distro->default_uid = s.default_uid;
	ret = registry_add(dirs, distro, err);
	if (!ret)
		form_remove_other(dir, distro->version);
	return ret;
}

/* ---- to another place ---- */

static int move_snapshots(const struct state_dirs *dirs, const struct distro *distro,
			  const char *to, struct pil_err *err)
{
	_auto_free struct snapshot *list = NULL;
	int n = copies_list(dirs, distro, &list, err), ret = n < 0 ? n : 0;

	for (int i = 0; list && i < n && !ret; i++) {
		_auto_free char *from = folder_of(dirs, distro, list[i].tag);
		_auto_free char *copy = str_printf("%s/snapshots/%s", to, list[i].tag);
		_auto_free char *note = str_printf("%s/" NOTE, from);
		_auto_free char *note_copy = str_printf("%s/" NOTE, copy);

		ret = path_mkdirs(copy, 0700);
		if (ret)
			pil_err_set(err, -ret, "make folder '%s'", copy);
		else
			ret = copies_copy_form(from, copy, list[i].version, false, err);
		if (!ret)
			ret = copy_file(note, note_copy, err);
	}
	return ret;
}

/* Lets distros/NAME lead to @to.  What it was is removed. */
static int switch_over(const struct state_dirs *dirs, const struct distro *distro, const char *to,
		       struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/distros/%s", dirs->data, distro->name);
	_auto_free char *old = str_printf("%s/distros/" TREE_MOVING "%s", dirs->data, distro->name);
	int ret = tree_remove(old, err);

	if (ret)
		return ret;
	if (symlink(to, old))
		return pil_err_set(err, errno, "make link '%s'", old);
	ret = tree_swap(old, dir, err);
	if (ret) {
		unlink(old);
		return ret;
	}
	if (tree_remove(old, err))
		log_warn("moved, but the old files are still there: %s", err ? err->msg : old);
	return 0;
}

int copies_move(const struct state_dirs *dirs, const struct distro *distro, const char *folder,
		struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/distros/%s", dirs->data, distro->name);
	_auto_free char *json = str_printf("%s/distro.json", dir);
	_auto_free char *to = install_prepare_folder(folder, err);
	_auto_free char *json_copy = to ? str_printf("%s/distro.json", to) : NULL;
	int ret;

	if (!to)
		return err && err->code ? -err->code : -EIO;
	ret = copies_copy_form(dir, to, distro->version, false, err);
	if (!ret)
		ret = copies_copy_notes(dir, to, err);
	if (!ret)
		ret = move_snapshots(dirs, distro, to, err);
	if (!ret)
		ret = copy_file(json, json_copy, err);
	if (!ret)
		ret = switch_over(dirs, distro, to, err);
	if (ret && tree_remove(to, NULL))
		log_dbg("'%s' is left behind", to);
	return ret;
}
