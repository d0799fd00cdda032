/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: mke2fs, e2fsck and pillion-image (the way back) do the work, each as uid 0
 * of the namespace in a folder that it owns, image.part beside the image; a finished file is
 * renamed out of there.  So being killed leaves a folder that the next call removes, and never a
 * half-made image or tree under its final name.
 *
 * The file system is made for its largest size at once and the image is as small as what is in it:
 * mke2fs skips what is zero, bitmaps and inode tables of unused groups are not written, and the
 * machine gives blocks back with discard. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "path.h"
#include "proc.h"
#include "state.h"
#include "str.h"
#include "userns.h"

enum { WORK_TIMEOUT_MS = 30 * 60 * 1000 };

enum { /* offsets of the superblock, and flags in it (ext4's disk layout) */
       SUPERBLOCK = 1024,
       SB_MAGIC = SUPERBLOCK + 0x38,
       SB_STATE = SUPERBLOCK + 0x3a,
       SB_INCOMPAT = SUPERBLOCK + 0x60,
       SB_END = SUPERBLOCK + 0x64,
       STATE_CLEAN = 1,
       STATE_ERRORS = 2,
       INCOMPAT_RECOVER = 4, /* the journal holds what the file system lacks */
};

enum image_state image_state(const uint8_t *start, size_t bytes)
{
	unsigned state;

	if (bytes < SB_END || start[SB_MAGIC] != 0x53 || start[SB_MAGIC + 1] != 0xef)
		return IMAGE_NOT_EXT4;
	state = start[SB_STATE];
	return (state & STATE_CLEAN) && !(state & STATE_ERRORS) &&
			       !(start[SB_INCOMPAT] & INCOMPAT_RECOVER)
		       ? IMAGE_CLEAN
		       : IMAGE_UNCLEAN;
}

/* Runs @a in the namespace and returns its exit status; what it says goes to @log. */
static int run(struct argv *a, struct userns_stage *stage, int log_fd, struct pil_err *err)
{
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = log_fd,
				 .stderr_fd = log_fd,
				 .new_session = true,
				 .die_with_us = true};
	pid_t pid = userns_spawn(a->v, stage, &opts, err);
	int status;

	if (pid < 0)
		return pid;
	status = proc_wait(pid, WORK_TIMEOUT_MS);
	if (status == -ETIMEDOUT)
		proc_stop(pid, 1000);
	return status;
}

static int open_log(void)
{
	return memfd_create("log", MFD_CLOEXEC);
}

/* The last line of what a program said, for an error message. */
static void last_line(int log_fd, char *out, size_t size)
{
	char text[1024];
	off_t end = lseek(log_fd, 0, SEEK_END);
	ssize_t n = pread(log_fd, text, sizeof(text) - 1, end > 1000 ? end - 1000 : 0);
	char *line;

	text[n > 0 ? n : 0] = '\0';
	while (n > 0 && text[n - 1] == '\n')
		text[--n] = '\0';
	line = strrchr(text, '\n');
	str_escape(out, size, line ? line + 1 : text);
}

static int failed(const char *what, int status, int log_fd, struct pil_err *err)
{
	char why[256];

	if (status < 0)
		return status == -ETIMEDOUT
			       ? pil_err_say(err, ETIMEDOUT, "%s: no end after 30 min", what)
			       : status;
	last_line(log_fd, why, sizeof(why));
	if (strstr(why, "No space left") || strstr(why, "Disk quota"))
		pil_err_hint(err, "is there room? df -h");
	return pil_err_say(err, EIO, "%s: %s", what, why[0] ? why : "failed without a word");
}

static int fresh_part(const char *dir, char **part, struct pil_err *err)
{
	int ret;

	*part = str_printf("%s/image.part", dir);
	ret = userns_remove_tree(*part, err);
	if (!ret && (ret = userns_mkdir(*part)))
		pil_err_set(err, -ret, "make folder '%s'", *part);
	return ret;
}

static void drop_part(const char *part)
{
	if (userns_remove_tree(part, NULL))
		log_dbg("'%s' is left behind; the next try removes it", part);
}

int image_from_tree(const char *dir, uint64_t limit_bytes, struct pil_err *err)
{
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_free char *image = str_printf("%s/" IMAGE_NAME, dir);
	_auto_free char *part = NULL;
	_auto_free char *made = NULL;
	_auto_argv struct argv a = {0};
	_auto_fd int log_fd = open_log();
	struct userns_stage stage = {0};
	int ret = fresh_part(dir, &part, err);

	if (ret)
		return ret;
	made = str_printf("%s/" IMAGE_NAME, part);
	argv_add_all(&a, (const char *const[]){
				 "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-i", "65536",
				 "-m", "0", "-E",
				 "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,discard",
				 "-d", userns_stage_add(&stage, rootfs), NULL});
	argv_addf(&a, "%s/" IMAGE_NAME, userns_stage_add(&stage, part));
	argv_addf(&a, "%lluk", (unsigned long long)(limit_bytes >> 10));
	ret = run(&a, &stage, log_fd, err);
	if (ret)
		ret = failed("make the disk", ret, log_fd, err);
	else if (rename(made, image))
		ret = pil_err_set(err, errno, "move '%s'", made);
	drop_part(part);
	return ret;
}

int image_to_tree(const char *dir, struct pil_err *err)
{
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_free char *image = str_printf("%s/" IMAGE_NAME, dir);
	_auto_free char *program = state_find_program("distro", "pillion-image");
	_auto_free char *part = NULL;
	_auto_argv struct argv a = {0};
	_auto_fd int log_fd = open_log();
	struct userns_stage stage = {0};
	int ret = image_check(dir, err);

	if (ret)
		return ret;
	if (!program)
		return pil_err_say(err, ENOENT, "pillion-image is not beside this program");
	ret = fresh_part(dir, &part, err);
	if (ret)
		return ret;
	argv_add_all(&a, (const char *const[]){userns_stage_add(&stage, program),
					       userns_stage_add(&stage, image),
					       userns_stage_add(&stage, part), NULL});
	ret = run(&a, &stage, log_fd, err);
	if (ret)
		ret = failed("read the disk", ret, log_fd, err);
	if (!ret)
		ret = userns_remove_tree(rootfs, err);
	if (!ret && rename(part, rootfs))
		ret = pil_err_set(err, errno, "move '%s'", part);
	if (ret)
		drop_part(part);
	return ret;
}

int image_check(const char *dir, struct pil_err *err)
{
	_auto_free char *image = str_printf("%s/" IMAGE_NAME, dir);
	_auto_fd int fd = open(image, O_RDONLY | O_CLOEXEC);
	_auto_fd int log_fd = open_log();
	_auto_argv struct argv a = {0};
	struct userns_stage stage = {0};
	uint8_t start[4096];
	ssize_t n;
	int status;

	if (fd < 0)
		return pil_err_set(err, errno, "open the disk '%s'", image);
	n = pread(fd, start, sizeof(start), 0);
	switch (image_state(start, n > 0 ? (size_t)n : 0)) {
	case IMAGE_CLEAN:
		return 0;
	case IMAGE_NOT_EXT4:
		return pil_err_say(err, EUCLEAN, "the disk '%s' is not an ext4 image", image);
	case IMAGE_UNCLEAN:
		break;
	}
	log_info("disk '%s' was in use; looking through it", image);
	argv_add_all(&a,
		     (const char *const[]){"e2fsck", "-p", userns_stage_add(&stage, image), NULL});
	status = run(&a, &stage, log_fd, err);
	if (status >= 0 && status < 4) /* nothing to mend, or mended */
		return 0;
	pil_err_hint(err, "a copy first, then: e2fsck -f %.180s", image);
	return status < 0 ? status
			  : pil_err_say(err, EUCLEAN,
					"the disk '%s' is damaged and needs your decision", image);
}
