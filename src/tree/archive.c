/* SPDX-License-Identifier: Apache-2.0
 *
 * Starts pillion-archive in its pen: with the tree at TREE, an image at IMAGE, and an archive as
 * standard input or output.  A tree may take all the room that its file system has, but for a
 * reserve: an archive of a few kilobytes can stand for terabytes of zeros. */
#include "tree/archive.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <jansson.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "config/state.h"
#include "port/pen.h"
#include "port/pen_run.h"
#include "port/userns.h"

#define TREE    "/tree"
#define IMAGE   "/image"
#define PROGRAM "/pillion-archive"

enum { RESERVE_MIB = 256, MAX_TOLD_BYTES = 1 << 20 };

const struct archive_format archive_formats[] = {
	{"tar", "none"}, {"tar.gz", "gzip"}, {"tar.xz", "xz"}, {"tar.zst", "zstd"}, {0}};

void archive_told_finish(struct archive_told *told)
{
	free(told->workdir);
	for (char **e = told->env; *e; e++)
		free(*e);
	*told = (struct archive_told){0};
}

bool archive_told_parse(const char *text, size_t len, struct archive_told *told)
{
	json_auto_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	json_t *env = NULL, *entry;
	const char *workdir = "";
	int uid = 0;
	size_t i, n = 0;

	*told = (struct archive_told){0};
	if (!root ||
	    json_unpack(root, "{s:i, s:o, s:s}", "uid", &uid, "env", &env, "workdir", &workdir) ||
	    !json_is_array(env) || uid < 0 || uid >= 65534 ||
	    json_array_size(env) > ARCHIVE_MAX_ENV || (workdir[0] && workdir[0] != '/'))
		return false;
	told->uid = (unsigned)uid;
	json_array_foreach(env, i, entry)
	{
		const char *value = json_string_value(entry);

		if (!value || !strchr(value, '=') || value[0] == '=') {
			archive_told_finish(told);
			return false;
		}
		told->env[n++] = str_printf("%s", value);
	}
	if (workdir[0])
		told->workdir = str_printf("%s", workdir);
	return true;
}

int archive_told_save(const struct archive_told *told, const char *path, struct pil_err *err)
{
	json_auto_t *env = json_array();
	json_auto_t *root = NULL;
	_auto_free char *text = NULL;
	int ret = -ENOMEM;

	for (char *const *e = told->env; *e; e++)
		json_array_append_new(env, json_string(*e));
	root = json_pack("{s:i, s:O, s:s}", "uid", (int)told->uid, "env", env, "workdir",
			 told->workdir ? told->workdir : "");
	text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
	if (text)
		ret = pil_write_file(path, 0600, text, strlen(text));
	return ret ? pil_err_set(err, -ret, "write '%s'", path) : 0;
}

void archive_told_load(struct archive_told *told, const char *path)
{
	_auto_free char *text = NULL;
	ssize_t len = pil_read_file(path, MAX_TOLD_BYTES, &text);

	*told = (struct archive_told){0};
	if (len >= 0 && !archive_told_parse(text, (size_t)len, told))
		log_warn("'%s' cannot be read: it is left out", path);
}

/* What an archive may fill below @folder. */
static uint64_t room_bytes(const char *folder)
{
	const uint64_t reserve = (uint64_t)RESERVE_MIB << 20;
	struct statvfs st;
	uint64_t left;

	if (statvfs(folder, &st))
		return UINT64_MAX;
	left = (uint64_t)st.f_bavail * st.f_frsize;
	return left > reserve ? left - reserve : 0;
}

/* Begins the pen of pillion-archive, with @rootfs at TREE. */
static void begin(struct argv *a, struct userns_stage *stage, const char *program,
		  const char *rootfs, bool write)
{
	static const char *const
		caps[] = {"CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER",
			  "CAP_FSETID", "CAP_MKNOD",        "CAP_SETFCAP",         "CAP_SYS_CHROOT",
			  NULL}; /* it makes the tree its root folder, then gives the last one up */

	pen_begin(a, caps);
	pen_bind(a, stage, "--ro-bind", program, PROGRAM);
	pen_bind(a, stage, write ? "--bind" : "--ro-bind", rootfs, TREE);
}

struct progress {
	int fd;
	off_t size;
	const char *what;
	bool shown;
};

/* How much of the archive has been read, where somebody looks. */
static void show_progress(void *arg)
{
	struct progress *p = arg;
	off_t at = lseek(p->fd, 0, SEEK_CUR);

	if (at < 0 || p->size <= 0 || !isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\rUnpacking %s: %3d %%", p->what, (int)(100 * at / p->size));
	p->shown = true;
}

static int make_root(const char *rootfs, struct pil_err *err)
{
	int ret = userns_mkdir(rootfs);

	return ret ? pil_err_set(err, -ret, "make folder '%s'", rootfs) : 0;
}

int archive_check_tree(const char *rootfs, const char *what, struct pil_err *err)
{
	static const char *const wanted[] = {"bin", "sbin", "usr", "etc", "lib"};

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		_auto_free char *path = str_printf("%s/%s", rootfs, wanted[i]);
		struct stat st;

		if (lstat(path, &st) == 0)
			return 0;
	}
	pil_err_hint(err, "its root must hold /bin, /etc, /usr: tar -C ROOT -c .");
	return pil_err_say(err, EBADMSG, "%s: The imported file is not a valid Linux distribution.",
			   what);
}

int archive_unpack(int fd, const char *rootfs, const char *what, struct pil_err *err)
{
	_auto_free char *program = state_find_program("archive", "pillion-archive", err);
	_auto_free char *doing = str_printf("unpack '%.100s'", what);
	_auto_argv struct argv a = {0};
	struct userns_stage stage = {0};
	struct pen_said said = {0};
	struct stat st = {0};
	struct progress progress = {.fd = fd, .what = what};
	struct pen_opts opts = {.stdin_fd = fd,
				.stdout_fd = -1,
				.reports = true,
				.tick = show_progress,
				.arg = &progress};
	int status;

	if (!program)
		return -ENOENT;
	status = make_root(rootfs, err);
	if (status)
		return status;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		progress.size = st.st_size;
	begin(&a, &stage, program, rootfs, true);
	argv_add_all(&a, (const char *const[]){"--", PROGRAM, "unpack", TREE, NULL});
	argv_addf(&a, "%llu", (unsigned long long)room_bytes(rootfs));
	status = pen_run(&a, &stage, &opts, &said, err);
	if (progress.shown)
		fprintf(stderr, "\r\033[K");
	return status ? pen_failed(doing, status, &said, err) : 0;
}

int archive_unpack_image(const char *folder, const char *tag, const char *rootfs,
			 struct archive_told *told, struct pil_err *err)
{
	_auto_free char *program = state_find_program("archive", "pillion-archive", err);
	_auto_argv struct argv a = {0};
	struct userns_stage stage = {0};
	struct pen_said said = {0};
	struct pen_opts opts = {.stdin_fd = -1, .stdout_fd = -1, .capture = true, .reports = true};
	int status;

	*told = (struct archive_told){0};
	if (!program)
		return -ENOENT;
	status = make_root(rootfs, err);
	if (status)
		return status;
	begin(&a, &stage, program, rootfs, true);
	pen_bind(&a, &stage, "--ro-bind", folder, IMAGE);
	argv_add_all(&a, (const char *const[]){"--", PROGRAM, "layers", TREE, NULL});
	argv_addf(&a, "%llu", (unsigned long long)room_bytes(rootfs));
	argv_add(&a, IMAGE);
	if (tag)
		argv_add(&a, tag);
	status = pen_run(&a, &stage, &opts, &said, err);
	if (status)
		status = pen_failed("unpack the image", status, &said, err);
	else if (!archive_told_parse(said.out ? said.out : "", said.n_out, told))
		status = pil_err_say(err, EIO, "unpack the image: no answer");
	else
		status = archive_check_tree(rootfs, "the image", err);
	pen_said_finish(&said);
	return status;
}

int archive_pack(const char *rootfs, int fd, const char *filter, struct pil_err *err)
{
	_auto_free char *program = state_find_program("archive", "pillion-archive", err);
	_auto_argv struct argv a = {0};
	struct userns_stage stage = {0};
	struct pen_said said = {0};
	struct pen_opts opts = {.stdin_fd = -1, .stdout_fd = fd, .reports = true};
	int status;

	if (!program)
		return -ENOENT;
	begin(&a, &stage, program, rootfs, false);
	argv_add_all(&a, (const char *const[]){"--", PROGRAM, "pack", TREE, filter, NULL});
	status = pen_run(&a, &stage, &opts, &said, err);
	return status ? pen_failed("pack the tree", status, &said, err) : 0;
}
