/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: mke2fs, e2fsck and pillion-image (image_main.c) do the work, each as uid 0
 * of the namespace in a folder that it owns, image.part beside the image; a finished file is
 * renamed out of there.  So being killed leaves a folder that the next call removes, and never a
 * half-made image or tree under its final name.
 *
 * Disks and trees are what a guest made of them, and such programs have been tricked by less: each
 * runs in a pen (pen.h) that holds the disk at DISK, or the folder it is made in at PART, and the
 * tree at TREE.
 *
 * The file system is made for its largest size at once and the image is as small as what is in it:
 * mke2fs skips what is zero, bitmaps and inode tables of unused groups and the journal are not
 * written, and the machine gives blocks back with discard.  An empty one for 1 TiB takes 12 MiB.
 * The journal's size is set, since by default it would be 1 GiB there, which a machine fills.
 *
 * A disk has one user, whoever started it and wherever its sockets lie: the lock on the image
 * itself (flock) is taken before a byte of it is read, since repairing a disk under the guest that
 * writes it destroys it.  A machine's supervisor hands the locked descriptor on to pillion-vmm. */
#include "disk/image.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "config/state.h"
#include "port/pen.h"
#include "port/pen_run.h"
#include "port/userns.h"
#include "tree/copy.h"

#define DISK "/disk"
#define PART "/part"
#define TREE "/tree"

#define EXTENDED "root_owner=0:0,discard,lazy_itable_init=1,lazy_journal_init=1"

enum { JOURNAL_MIB = 64, LOCK_TRIES = 20, LOCK_WAIT_MS = 50 };

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

/* Ends the options of the pen with program @name of e2fsprogs, which is not in the PATH of most
 * users. */
static void add_sbin(struct argv *a, const char *name)
{
	_auto_free char *path = str_printf("/usr/sbin/%s", name);

	argv_add(a, "--");
	argv_add(a, path_exists(path) ? path : name);
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

static int make_image(const char *rootfs, const char *part, uint64_t limit_bytes,
		      struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	struct pen_said said = {0};
	struct userns_stage stage = {0};
	int status;

	pen_begin(&a, pen_file_caps);
	pen_bind(&a, &stage, "--bind", part, PART);
	pen_bind(&a, &stage, "--ro-bind", rootfs, TREE);
	argv_add_all(&a, (const char *const[]){"--ro-bind-try", "/etc/mke2fs.conf",
					       "/etc/mke2fs.conf", NULL});
	add_sbin(&a, "mke2fs");
	argv_add_all(&a, (const char *const[]){"-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256",
					       "-i", "16384", "-m", "0", "-O", "^resize_inode",
					       "-E", EXTENDED, NULL});
	argv_add(&a, "-J");
	argv_addf(&a, "size=%d", JOURNAL_MIB);
	argv_add_all(&a, (const char *const[]){"-d", TREE, PART "/" IMAGE_NAME, NULL});
	argv_addf(&a, "%lluk", (unsigned long long)(limit_bytes >> 10));
	status = pen_run(&a, &stage, NULL, &said, err);
	return status ? pen_failed("make the disk", status, &said, err) : 0;
}

/* Lets pillion-image finish @image by the tree in @folder, or extract it to there. */
static int run_image_program(bool finish, const char *image, const char *folder,
			     struct pil_err *err)
{
	_auto_free char *program = state_find_program("disk", "pillion-image", err);
	_auto_argv struct argv a = {0};
	struct pen_said said = {0};
	struct pen_opts opts = {.stdin_fd = -1, .stdout_fd = -1, .reports = true};
	struct userns_stage stage = {0};
	int status;

	if (!program)
		return -ENOENT;
	pen_begin(&a, pen_file_caps);
	pen_bind(&a, &stage, "--ro-bind", program, "/pillion-image");
	pen_bind(&a, &stage, finish ? "--bind" : "--ro-bind", image, DISK);
	pen_bind(&a, &stage, finish ? "--ro-bind" : "--bind", folder, TREE);
	argv_add_all(&a, (const char *const[]){"--", "/pillion-image",
					       finish ? "finish" : "extract", DISK, TREE, NULL});
	status = pen_run(&a, &stage, &opts, &said, err);
	return status ? pen_failed(finish ? "complete the disk" : "read the disk", status, &said,
				   err)
		      : 0;
}

int image_from_tree(const char *dir, uint64_t limit_bytes, struct pil_err *err)
{
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_free char *image = str_printf("%s/" IMAGE_NAME, dir);
	_auto_free char *part = NULL;
	_auto_free char *made = NULL;
	int ret;

	if (limit_bytes < (uint64_t)IMAGE_MIN_MIB << 20) {
		pil_err_hint(err, "defaultVhdSize = 1TB in the config");
		return pil_err_say(err, EINVAL, "a disk of less than %d MiB holds no distribution",
				   IMAGE_MIN_MIB);
	}
	ret = fresh_part(dir, &part, err);
	if (ret)
		return ret;
	made = str_printf("%s/" IMAGE_NAME, part);
	ret = make_image(rootfs, part, limit_bytes, err);
	if (!ret)
		ret = run_image_program(true, made, rootfs, err);
	if (!ret && rename(made, image))
		ret = pil_err_set(err, errno, "move '%s'", made);
	drop_part(part);
	return ret;
}

int image_to_tree(const char *dir, struct pil_err *err)
{
	_auto_free char *image = str_printf("%s/" IMAGE_NAME, dir);

	return image_to_tree_at(image, dir, err);
}

int image_to_tree_at(const char *image, const char *dir, struct pil_err *err)
{
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_free char *part = NULL;
	int ret = fresh_part(dir, &part, err);

	if (ret)
		return ret;
	ret = run_image_program(false, image, part, err);
	if (!ret)
		ret = userns_remove_tree(rootfs, err);
	if (!ret && rename(part, rootfs))
		ret = pil_err_set(err, errno, "move '%s'", part);
	if (ret)
		drop_part(part);
	return ret;
}

/* Runs @program of e2fsprogs on @image, with @args (NULL-terminated): its status, or -errno. */
static int run_e2fs(const char *image, const char *program, const char *const *args,
		    struct pen_said *said, struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	struct userns_stage stage = {0};

	*said = (struct pen_said){0};
	pen_begin(&a, (const char *const[]){"CAP_DAC_OVERRIDE", NULL});
	pen_bind(&a, &stage, "--bind", image, DISK);
	add_sbin(&a, program);
	argv_add_all(&a, args);
	return pen_run(&a, &stage, NULL, said, err);
}

/* Status 1 says that e2fsck has repaired something, or that bubblewrap has not run it: when asked
 * again, only the former is well. */
static int check(const char *image, const char *const *args, struct pil_err *err)
{
	struct pen_said said;
	int status = run_e2fs(image, "e2fsck", args, &said, err);

	if (status == 1 || status == 2)
		status = run_e2fs(image, "e2fsck", args, &said, err);
	return status ? pen_failed("look through the disk", status, &said, err) : 0;
}

static int resize(const char *image, uint64_t bytes, struct pil_err *err)
{
	static const char *const check_args[] = {"-f", "-p", DISK, NULL};
	_auto_free char *size = str_printf("%lluK", (unsigned long long)(bytes >> 10));
	const char *const args[] = {DISK, size, NULL};
	int ret = check(image, check_args, err), status;
	struct pen_said said;
	struct stat st;

	if (!ret && stat(image, &st))
		ret = pil_err_set(err, errno, "look at '%s'", image);
	if (!ret && (uint64_t)st.st_size < bytes && truncate(image, (off_t)bytes))
		ret = pil_err_set(err, errno, "size '%s'", image);
	if (!ret && (status = run_e2fs(image, "resize2fs", args, &said, err)))
		ret = pen_failed("resize the disk", status, &said, err);
	if (!ret && truncate(image, (off_t)bytes))
		ret = pil_err_set(err, errno, "size '%s'", image);
	return ret;
}

int image_resize(const char *dir, uint64_t bytes, struct pil_err *err)
{
	_auto_free char *image = str_printf("%s/" IMAGE_NAME, dir);
	_auto_free char *part = NULL;
	_auto_free char *made = NULL;
	int ret;

	bytes &= ~UINT64_C(4095);
	if (bytes < (uint64_t)IMAGE_MIN_MIB << 20)
		return pil_err_say(err, EINVAL, "a disk of less than %d MiB holds no distribution",
				   IMAGE_MIN_MIB);
	ret = fresh_part(dir, &part, err);
	if (ret)
		return ret;
	made = str_printf("%s/" IMAGE_NAME, part);
	ret = copy_disk(image, made, err);
	if (!ret)
		ret = resize(made, bytes, err);
	if (!ret && rename(made, image))
		ret = pil_err_set(err, errno, "move '%s'", made);
	drop_part(part);
	return ret;
}

int image_compact(const char *dir, struct pil_err *err)
{
	static const char *const args[] = {"-f", "-p", "-E", "discard", DISK, NULL};
	_auto_free char *image = str_printf("%s/" IMAGE_NAME, dir);

	return check(image, args, err);
}

/* The folder of a distribution's disk is named as the distribution. */
static void hint_lost(const char *image, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%.*s", (int)(strrchr(image, '/') - image), image);
	const char *slash = strrchr(dir, '/');

	pil_err_hint(err,
		     "put a copy back in its place, or give it up: pillion --unregister %.100s",
		     slash ? slash + 1 : dir);
}

/* Takes the lock of @image; a machine that was killed a moment ago may not have let go yet. */
static int lock(int fd, const char *image, struct pil_err *err)
{
	struct stat st;

	for (int n = 0; flock(fd, LOCK_EX | LOCK_NB); n++) {
		if (errno != EWOULDBLOCK)
			return pil_err_set(err, errno, "lock disk '%s'", image);
		if (n == LOCK_TRIES) {
			pil_err_hint(err, "end the machine that uses it: pillion --list -v, "
					  "pillion --terminate NAME");
			return pil_err_say(err, EBUSY, "disk '%s' is used by another machine",
					   image);
		}
		poll(NULL, 0, LOCK_WAIT_MS);
	}
	/* who had it may have been --set-version or --unregister */
	return fstat(fd, &st) || st.st_nlink == 0
		       ? pil_err_say(err, ENOENT, "disk '%s' has just been removed", image)
		       : 0;
}

static enum image_state state_of(int fd)
{
	uint8_t start[4096];
	ssize_t n = pread(fd, start, sizeof(start), 0);

	return image_state(start, n > 0 ? (size_t)n : 0);
}

static int repair(int fd, const char *image, struct pil_err *err)
{
	struct pen_said said = {0};
	_auto_argv struct argv a = {0};
	struct userns_stage stage = {0};
	int status;

	log_info("disk '%s' was in use; looking through it", image);
	pen_begin(&a, (const char *const[]){"CAP_DAC_OVERRIDE", NULL});
	pen_bind(&a, &stage, "--bind", image, DISK);
	add_sbin(&a, "e2fsck");
	argv_add_all(&a, (const char *const[]){"-p", DISK, NULL});
	status = pen_run(&a, &stage, NULL, &said, err);
	if (status >= 0 && status < 4 && state_of(fd) == IMAGE_CLEAN) /* not bubblewrap's own 1 */
		return 0;
	if (status < 4)
		return pen_failed("look through the disk", status, &said, err);
	pil_err_hint(err, "a copy first, then: e2fsck -f %.180s", image);
	return pil_err_say(err, EUCLEAN, "the disk '%s' is damaged and needs your decision", image);
}

int image_open(const char *image, struct pil_err *err)
{
	_auto_fd int fd = open(image, O_RDWR | O_CLOEXEC);
	int ret;

	if (fd < 0) {
		hint_lost(image, err);
		return pil_err_set(err, errno, "open the disk '%s'", image);
	}
	ret = lock(fd, image, err);
	if (ret)
		return ret;
	switch (state_of(fd)) {
	case IMAGE_CLEAN:
		break;
	case IMAGE_NOT_EXT4:
		hint_lost(image, err);
		return pil_err_say(err, EUCLEAN, "the disk '%s' is not an ext4 image", image);
	case IMAGE_UNCLEAN:
		ret = repair(fd, image, err);
	}
	return ret ? ret : pil_take_fd(&fd);
}
