/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: one walk over the image's folders serves both ways.  A visitor is called for
 * each file with its path, which is the same in the image and below the current folder.  Files are
 * reached by path: the folder is ours alone and every folder in it was made by the walk (or is not
 * written to), so no link can lead elsewhere; besides, the program runs where little else is
 * (pen.h).
 *
 * What is made of a file: contents with holes kept, owner, mode, times to the nanosecond, extended
 * attributes (ACLs and capabilities are such), hard links.  mke2fs -d carries all of these the
 * other way except parts of seconds, and cannot know of device nodes: finishing adds them.  Not
 * carried are flags (chattr), and sockets into an image: a socket is nothing without its program.
 *
 * The image is not trusted.  libext2fs checks what it reads.  Here each inode is met once, but for
 * hard links, and each block: a file, folder or link whose block belongs to another one is damaged.
 * So what is written is at most what is read: a hole in the image is zeroes, which are not written.
 * Only attributes may be shared; they have a bound of their own (MAX_XATTR_BYTES).  Depth is
 * bounded by the length of a path.  What is held in memory of all folders on the way, and of the
 * names of hard links, is charged before it is (MAX_HELD_BYTES); whatever libext2fs itself takes,
 * the pen has a limit (pen.h). */
#include "disk/image_files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* its inline functions are not clean by our warnings */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <ext2fs/ext2fs.h>
#pragma GCC diagnostic pop

#include "base/fd.h"
#include "base/str.h"

enum {
	CHUNK_BLOCKS = 64,
	MAX_HELD_BYTES = 256 << 20, /* 4 million entries of short names */
	MAX_XATTR_BYTES = 1 << 30,  /* of all files together */
	LAST_ID = 65535,
	ENTRY_BYTES = 8, /* of one in a folder, without its name */
};

struct link_name { /* in a tsearch() tree: where an inode of several names was first met */
	ext2_ino_t ino;
	char *path;
};

struct image_files {
	ext2_filsys fs;
	ext2fs_inode_bitmap seen; /* inodes that have been met */
	ext2fs_block_bitmap used; /* blocks that have been met, in contents, folders, links */
	void *links;              /* tree of struct link_name */
	size_t held_bytes;        /* of entries and names of links, at most MAX_HELD_BYTES */
	uint64_t xattr_bytes;     /* so far */
	char *chunk;              /* CHUNK_BLOCKS blocks */
	uint64_t left_bytes;      /* that may still be written */
	char path[PATH_MAX];      /* of the file at hand, "." for the root */
	struct pil_err *err;      /* of the call that runs */
	int (*visit)(struct image_files *w, ext2_ino_t ino, struct ext2_inode_large *inode);
	int (*leave)(struct image_files *w, ext2_ino_t ino, struct ext2_inode_large *inode);
};

static int damaged(struct image_files *w, errcode_t code, const char *what)
{
	char path[512];

	return pil_err_say(w->err, EUCLEAN, "the disk is damaged: %s of '%s': %s", what,
			   str_escape(path, sizeof(path), w->path), error_message(code));
}

static int failed(struct image_files *w, const char *what)
{
	int code = errno;
	char path[512];

	if (code == ENOSPC || code == EDQUOT)
		pil_err_hint(w->err, "is there room? df -h");
	return pil_err_set(w->err, code, "%s '%s'", what, str_escape(path, sizeof(path), w->path));
}

/* Takes @bytes off what may still be written. */
static int charge(struct image_files *w, size_t bytes, const char *what)
{
	if (bytes > w->left_bytes)
		return damaged(w, EXT2_ET_FILE_TOO_BIG, what);
	w->left_bytes -= bytes;
	return 0;
}

/* Takes blocks for the file at hand, whose they must be alone. */
static int claim(struct image_files *w, uint64_t from, uint64_t count, const char *what)
{
	uint64_t all = ext2fs_blocks_count(w->fs->super);

	if (from >= all || count > all - from)
		return damaged(w, EXT2_ET_BAD_BLOCK_NUM, what);
	if (count && !ext2fs_test_block_bitmap_range2(w->used, from, (unsigned)count))
		return damaged(w, EXT2_ET_DIR_CORRUPTED, what);
	ext2fs_mark_block_bitmap_range2(w->used, from, (unsigned)count);
	return 0;
}

struct claimer {
	struct image_files *w;
	const char *what;
	int ret;
};

static int claim_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t at, blk64_t ref, int offset,
		       void *data)
{
	struct claimer *c = data;

	(void)fs;
	(void)ref;
	(void)offset;
	if (at >= 0 && *block)
		c->ret = claim(c->w, *block, 1, c->what);
	return c->ret ? BLOCK_ABORT : 0;
}

/* All blocks of a folder or a link. */
static int claim_all(struct image_files *w, ext2_ino_t ino, uint32_t flags, const char *what)
{
	struct claimer c = {w, what, 0};
	errcode_t code;

	if (flags & EXT4_INLINE_DATA_FL)
		return 0;
	code = ext2fs_block_iterate3(w->fs, ino, BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY, NULL,
				     claim_block, &c);
	return c.ret || !code ? c.ret : damaged(w, code, what);
}

/* Says that @bytes are about to be allocated, of a size that the image gives. */
static bool hold(struct image_files *w, size_t bytes)
{
	if (bytes > MAX_HELD_BYTES - w->held_bytes)
		return false;
	w->held_bytes += bytes;
	return true;
}

/* ---- the walk ---- */

struct entries {
	struct image_files *w;
	size_t held_bytes;
	struct dir_entry {
		ext2_ino_t ino;
		char *name;
	} *v;
	size_t n, capacity;
	bool bad, full;
};

static void entries_finish(struct entries *e)
{
	for (size_t i = 0; i < e->n; i++)
		free(e->v[i].name);
	free(e->v);
	e->w->held_bytes -= e->held_bytes;
}

/* Room for one more; malloc() takes 16 bytes for itself. */
static bool hold_entry(struct entries *e, size_t len)
{
	size_t bytes = len + 1 + 16;

	if (e->n == e->capacity) {
		size_t capacity = e->capacity ? 2 * e->capacity : 8;
		struct dir_entry *more;

		bytes += (capacity - e->capacity) * sizeof(*more);
		if (!hold(e->w, bytes))
			return false;
		e->held_bytes += bytes;
		more = realloc(e->v, capacity * sizeof(*more));
		if (!more)
			return false;
		e->v = more;
		e->capacity = capacity;
		return true;
	}
	if (!hold(e->w, bytes))
		return false;
	e->held_bytes += bytes;
	return true;
}

static int note_entry(struct ext2_dir_entry *d, int offset, int blocksize, char *buf, void *data)
{
	struct entries *e = data;
	int len = ext2fs_dirent_name_len(d);

	(void)offset;
	(void)blocksize;
	(void)buf;
	if ((len == 1 && d->name[0] == '.') || (len == 2 && !memcmp(d->name, "..", 2)))
		return 0;
	e->bad =
		len == 0 || memchr(d->name, '/', (size_t)len) || memchr(d->name, '\0', (size_t)len);
	if (!e->bad && !hold_entry(e, (size_t)len)) {
		e->full = true;
		return DIRENT_ABORT;
	}
	if (e->bad)
		return DIRENT_ABORT;
	e->v[e->n] = (struct dir_entry){d->inode, strndup(d->name, (size_t)len)};
	e->bad = !e->v[e->n].name;
	e->n += !e->bad;
	return e->bad ? DIRENT_ABORT : 0;
}

static int walk_folder(struct image_files *w, ext2_ino_t ino, uint32_t flags);

/* One file, and all in it when it is a folder; w->path is its own. */
static int walk_file(struct image_files *w, ext2_ino_t ino)
{
	struct ext2_inode_large inode = {0};
	errcode_t code;
	int ret;

	code = ext2fs_read_inode_full(w->fs, ino, (struct ext2_inode *)&inode, sizeof(inode));
	if (code)
		return damaged(w, code, "the inode");
	if (ext2fs_test_inode_bitmap2(w->seen, ino) &&
	    (LINUX_S_ISDIR(inode.i_mode) || inode.i_links_count < 2))
		return damaged(w, EXT2_ET_DIR_CORRUPTED, "a second name");
	ext2fs_mark_inode_bitmap2(w->seen, ino);
	ret = w->visit(w, ino, &inode);
	if (ret || !LINUX_S_ISDIR(inode.i_mode))
		return ret;
	ret = walk_folder(w, ino, inode.i_flags);
	return ret ? ret : w->leave(w, ino, &inode);
}

static bool is_lost_and_found(const struct image_files *w, ext2_ino_t ino, const char *name)
{
	return ino == EXT2_ROOT_INO && !strcmp(w->path, ".") && !strcmp(name, "lost+found");
}

static int walk_folder(struct image_files *w, ext2_ino_t ino, uint32_t flags)
{
	struct entries e = {.w = w};
	size_t length = strlen(w->path);
	errcode_t code = 0;
	int ret = claim_all(w, ino, flags, "the folder");

	if (!ret)
		code = ext2fs_dir_iterate(w->fs, ino, 0, NULL, note_entry, &e);
	if (e.full)
		ret = pil_err_say(w->err, ENOMEM, "too many files in the folders of the disk");
	else if (code || e.bad)
		ret = damaged(w, code ? code : EXT2_ET_DIR_CORRUPTED, "the folder");
	for (size_t i = 0; i < e.n && !ret; i++) {
		if (is_lost_and_found(w, ino, e.v[i].name)) /* e2fsck's own; made anew */
			continue;
		if (length + 1 + strlen(e.v[i].name) >= sizeof(w->path)) {
			ret = pil_err_say(w->err, ENAMETOOLONG, "a path in the disk is too long");
			break;
		}
		sprintf(w->path + length, "/%s", e.v[i].name);
		ret = charge(w, ENTRY_BYTES + strlen(e.v[i].name), "the name");
		if (!ret)
			ret = walk_file(w, e.v[i].ino);
		w->path[length] = '\0';
	}
	entries_finish(&e);
	return ret;
}

static int walk(struct image_files *w, struct pil_err *err)
{
	w->err = err;
	strcpy(w->path, ".");
	return walk_file(w, EXT2_ROOT_INO);
}

/* ---- opening ---- */

int image_files_open(struct image_files **out, const char *image, bool write, struct pil_err *err)
{
	struct image_files *w = calloc(1, sizeof(*w));
	int flags = EXT2_FLAG_64BITS | (write ? EXT2_FLAG_RW : 0);
	errcode_t code;

	if (!w)
		return pil_err_set(err, ENOMEM, "open disk '%s'", image);
	initialize_ext2_error_table();
	code = ext2fs_open(image, flags, 0, 0, unix_io_manager, &w->fs);
	if (!code) {
		w->fs->default_bitmap_type = EXT2FS_BMAP64_RBTREE; /* by what is met, not by size */
		code = ext2fs_allocate_inode_bitmap(w->fs, "files", &w->seen);
	}
	if (!code)
		code = ext2fs_allocate_subcluster_bitmap(w->fs, "blocks", &w->used);
	if (!code && !(w->chunk = malloc((size_t)CHUNK_BLOCKS * w->fs->blocksize)))
		code = ENOMEM;
	if (code) {
		pil_err_say(err, EUCLEAN, "open disk '%s': %s", image, error_message(code));
		if (image_files_close(w, NULL))
			return -EUCLEAN;
		return -EUCLEAN;
	}
	w->left_bytes = ext2fs_blocks_count(w->fs->super) * w->fs->blocksize;
	*out = w;
	return 0;
}

static void free_link(void *node)
{
	struct link_name *l = node;

	free(l->path);
	free(l);
}

int image_files_close(struct image_files *w, struct pil_err *err)
{
	errcode_t code = 0;

	if (!w)
		return 0;
	if (w->seen)
		ext2fs_free_inode_bitmap(w->seen);
	if (w->used)
		ext2fs_free_block_bitmap(w->used);
	if (w->fs)
		code = ext2fs_close_free(&w->fs);
	tdestroy(w->links, free_link);
	free(w->chunk);
	free(w);
	return code ? pil_err_say(err, EIO, "write the disk: %s", error_message(code)) : 0;
}

/* ---- out of the image ---- */

static bool is_zero(const char *block, size_t bytes)
{
	return block[0] == 0 && !memcmp(block, block + 1, bytes - 1);
}

/* Writes what is not zero of @count blocks from block @from on to @fd at block @at. */
static int write_blocks(struct image_files *w, int fd, uint64_t size, uint64_t at, uint64_t from,
			uint32_t count)
{
	uint32_t block_bytes = w->fs->blocksize;
	errcode_t code;

	if (claim(w, from, count, "the contents"))
		return -EUCLEAN;
	while (count > 0 && at <= size / block_bytes) {
		uint32_t now = count < CHUNK_BLOCKS ? count : CHUNK_BLOCKS;

		code = io_channel_read_blk64(w->fs->io, from, (int)now, w->chunk);
		if (code)
			return damaged(w, code, "the contents");
		for (uint32_t i = 0; i < now; i++) {
			char *block = w->chunk + (size_t)i * block_bytes;
			uint64_t start = (at + i) * block_bytes;
			size_t bytes = block_bytes;

			if (start >= size || is_zero(block, block_bytes))
				continue;
			if (bytes > size - start)
				bytes = size - start;
			if (charge(w, bytes, "the contents"))
				return -EUCLEAN;
			if (pwrite(fd, block, bytes, (off_t)start) != (ssize_t)bytes)
				return failed(w, "write");
		}
		at += now;
		from += now;
		count -= now;
	}
	return 0;
}

static int write_extents(struct image_files *w, int fd, ext2_ino_t ino,
			 struct ext2_inode_large *inode)
{
	ext2_extent_handle_t handle;
	struct ext2fs_extent extent;
	uint64_t next = 0;
	int op = EXT2_EXTENT_ROOT, ret = 0;
	errcode_t code = ext2fs_extent_open2(w->fs, ino, (struct ext2_inode *)inode, &handle);

	if (code)
		return damaged(w, code, "the contents");
	while (!ret && !(code = ext2fs_extent_get(handle, op, &extent))) {
		op = EXT2_EXTENT_NEXT;
		if (!(extent.e_flags & EXT2_EXTENT_FLAGS_LEAF) ||
		    (extent.e_flags & EXT2_EXTENT_FLAGS_UNINIT))
			continue;
		if (extent.e_lblk < next) { /* in order, so that they end */
			ret = damaged(w, EXT2_ET_EXTENT_INVALID_LENGTH, "the contents");
			break;
		}
		next = extent.e_lblk + extent.e_len;
		ret = write_blocks(w, fd, EXT2_I_SIZE(inode), extent.e_lblk, extent.e_pblk,
				   extent.e_len);
	}
	ext2fs_extent_free(handle);
	return ret || code == EXT2_ET_EXTENT_NO_NEXT ? ret : damaged(w, code, "the contents");
}

struct old_file { /* one whose blocks are listed one by one, or that lies in its inode */
	struct image_files *w;
	int fd, ret;
	uint64_t size;
};

static int write_old_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t at, blk64_t ref, int offset,
			   void *data)
{
	struct old_file *f = data;

	(void)fs;
	(void)ref;
	(void)offset;
	if (at >= 0 && *block)
		f->ret = write_blocks(f->w, f->fd, f->size, (uint64_t)at, *block, 1);
	return f->ret ? BLOCK_ABORT : 0;
}

static int write_inline(struct image_files *w, int fd, ext2_ino_t ino)
{
	unsigned got = 0;
	ext2_file_t file;
	errcode_t code = ext2fs_file_open(w->fs, ino, 0, &file);

	if (code)
		return damaged(w, code, "the contents");
	code = ext2fs_file_read(file, w->chunk, w->fs->blocksize, &got);
	ext2fs_file_close(file);
	if (code)
		return damaged(w, code, "the contents");
	return pwrite(fd, w->chunk, got, 0) == (ssize_t)got ? 0 : failed(w, "write");
}

static int write_contents(struct image_files *w, int fd, ext2_ino_t ino,
			  struct ext2_inode_large *inode)
{
	struct old_file old = {.w = w, .fd = fd, .size = EXT2_I_SIZE(inode)};
	errcode_t code;

	if (EXT2_I_SIZE(inode) > INT64_MAX / 2 || ftruncate(fd, (off_t)EXT2_I_SIZE(inode)))
		return failed(w, "size");
	if (inode->i_flags & EXT4_INLINE_DATA_FL)
		return write_inline(w, fd, ino);
	if (inode->i_flags & EXT4_EXTENTS_FL)
		return write_extents(w, fd, ino, inode);
	code = ext2fs_block_iterate3(w->fs, ino, BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY, NULL,
				     write_old_block, &old);
	return old.ret || !code ? old.ret : damaged(w, code, "the contents");
}

static int make_regular(struct image_files *w, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	_auto_fd int fd = open(w->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? failed(w, "make file") : write_contents(w, fd, ino, inode);
}

static int make_symlink(struct image_files *w, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	uint64_t size = EXT2_I_SIZE(inode);
	char target[PATH_MAX];
	unsigned got = 0;
	ext2_file_t file;
	errcode_t code;

	if (size == 0 || size >= sizeof(target))
		return damaged(w, EXT2_ET_FILE_TOO_BIG, "the link");
	if (ext2fs_is_fast_symlink((struct ext2_inode *)inode)) {
		memcpy(target, inode->i_block, size < sizeof(inode->i_block) ? size : 0);
		got = (unsigned)size;
	} else {
		if (claim_all(w, ino, inode->i_flags, "the link"))
			return -EUCLEAN;
		code = ext2fs_file_open(w->fs, ino, 0, &file);
		if (code)
			return damaged(w, code, "the link");
		code = ext2fs_file_read(file, target, (unsigned)size, &got);
		ext2fs_file_close(file);
		if (code)
			return damaged(w, code, "the link");
	}
	if (got != size || memchr(target, '\0', size))
		return damaged(w, EXT2_ET_FILE_TOO_BIG, "the link");
	target[size] = '\0';
	if (charge(w, size, "the link"))
		return -EUCLEAN;
	return symlink(target, w->path) ? failed(w, "make link") : 0;
}

static uid_t owner_of(const struct ext2_inode_large *inode)
{
	return inode->i_uid | (uid_t)inode->osd2.linux2.l_i_uid_high << 16;
}

static gid_t group_of(const struct ext2_inode_large *inode)
{
	return inode->i_gid | (gid_t)inode->osd2.linux2.l_i_gid_high << 16;
}

static dev_t device_of(const struct ext2_inode_large *inode)
{
	uint32_t old = inode->i_block[0], new = inode->i_block[1];

	if (old)
		return makedev(old >> 8 & 0xff, old & 0xff);
	return makedev((new & 0xfff00) >> 8, (new & 0xff) | (new >> 12 & 0xfff00));
}

/* Returns 1 when it stands for the node, complete. */
static int make_device(struct image_files *w, const struct ext2_inode_large *inode)
{
	dev_t device = device_of(inode);
	char text[64];
	int fd, n;

	if (!mknod(w->path, inode->i_mode, device)) /* 0,0 is for everybody: overlayfs uses it */
		return 0;
	if (errno != EPERM)
		return failed(w, "make device");
	fd = open(w->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0);
	if (fd < 0)
		return failed(w, "make file");
	close(fd);
	n = snprintf(text, sizeof(text), "%c %u %u %o %u %u",
		     LINUX_S_ISBLK(inode->i_mode) ? 'b' : 'c', major(device), minor(device),
		     inode->i_mode & 07777u, owner_of(inode), group_of(inode));
	if (lsetxattr(w->path, IMAGE_DEVICE_XATTR, text, (size_t)n, 0))
		return failed(w, "note device");
	return 1;
}

static int set_xattr(char *name, char *value, size_t len, void *data)
{
	struct image_files *w = ((void **)data)[0];
	struct ext2_xattr_handle *handle = ((void **)data)[1];
	int *ret = ((void **)data)[2];
	errcode_t code;
	void *out;
	size_t out_len;

	(void)value; /* as on the disk: ACLs look different there */
	(void)len;
	if (!strcmp(name, IMAGE_DEVICE_XATTR) || !strcmp(name, "system.data"))
		return 0;
	code = ext2fs_xattr_get(handle, name, &out, &out_len);
	if (code) {
		*ret = damaged(w, code, "an attribute");
		return XATTR_ABORT;
	}
	w->xattr_bytes += strlen(name) + out_len;
	*ret = w->xattr_bytes > MAX_XATTR_BYTES ? damaged(w, EXT2_ET_FILE_TOO_BIG, "the attributes")
						: charge(w, strlen(name) + out_len, "an attribute");
	if (!*ret && lsetxattr(w->path, name, out, out_len, 0)) {
		*ret = failed(w, "set an attribute of");
		if (*ret == -EPERM) {
			char safe[128], path[256];

			str_escape(safe, sizeof(safe), name);
			pil_err_say(w->err, EPERM, "a sandbox cannot hold attribute '%s' of '%s'",
				    safe, str_escape(path, sizeof(path), w->path));
			pil_err_hint(w->err, "remove it in the machine: setfattr -h -x '%s' FILE",
				     safe);
		}
	}
	ext2fs_free_mem(&out);
	return *ret ? XATTR_ABORT : 0;
}

static int set_xattrs(struct image_files *w, ext2_ino_t ino)
{
	struct ext2_xattr_handle *handle;
	errcode_t code = ext2fs_xattrs_open(w->fs, ino, &handle);
	int ret = 0;

	if (!code) {
		code = ext2fs_xattrs_read(handle);
		if (!code)
			code = ext2fs_xattrs_iterate(handle, set_xattr,
						     (void *[]){w, handle, &ret});
		ext2fs_xattrs_close(&handle);
	}
	return code ? damaged(w, code, "the attributes") : ret;
}

static struct timespec time_of(uint32_t seconds, uint32_t extra)
{
	return (struct timespec){
		.tv_sec = (int32_t)seconds + (int64_t)((uint64_t)(extra & 3) << 32),
		.tv_nsec = extra >> 2 < 1000000000 ? extra >> 2 : 0,
	};
}

/* Owner, mode, attributes, times: in the order in which none undoes another. */
static int set_rest(struct image_files *w, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	struct timespec times[2] = {time_of(inode->i_atime, inode->i_atime_extra),
				    time_of(inode->i_mtime, inode->i_mtime_extra)};
	char path[512];
	int ret;

	if (owner_of(inode) > LAST_ID || group_of(inode) > LAST_ID) {
		pil_err_hint(w->err, "in the machine: chown it, or remove it");
		return pil_err_say(
			w->err, EOVERFLOW,
			"'%s' belongs to %u:%u: a sandbox has users and groups up to %d only",
			str_escape(path, sizeof(path), w->path), owner_of(inode), group_of(inode),
			LAST_ID);
	}
	if (lchown(w->path, owner_of(inode), group_of(inode)))
		return failed(w, "set the owner of");
	if (!LINUX_S_ISLNK(inode->i_mode) && chmod(w->path, inode->i_mode & 07777))
		return failed(w, "set the mode of");
	ret = set_xattrs(w, ino);
	if (!ret && utimensat(AT_FDCWD, w->path, times, AT_SYMLINK_NOFOLLOW))
		ret = failed(w, "set the times of");
	return ret;
}

static int by_ino(const void *a, const void *b)
{
	const struct link_name *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* Returns 1 when the file was met before and is linked to. */
static int link_to_first(struct image_files *w, ext2_ino_t ino)
{
	struct link_name *l, **found;
	size_t bytes = sizeof(*l) + strlen(w->path) + 64; /* with what the tree takes */

	if (!hold(w, bytes))
		return pil_err_say(w->err, ENOMEM, "too many hard links in the disk");
	l = calloc(1, sizeof(*l));
	if (!l || !(l->path = strdup(w->path))) {
		free(l);
		errno = ENOMEM;
		return failed(w, "link");
	}
	l->ino = ino;
	found = tsearch(l, &w->links, by_ino);
	if (found && *found == l)
		return 0;
	free_link(l);
	w->held_bytes -= bytes;
	if (!found) {
		errno = ENOMEM;
		return failed(w, "link");
	}
	return link((*found)->path, w->path) ? failed(w, "link") : 1;
}

static int extract_one(struct image_files *w, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	int ret = 0;

	if (ino == EXT2_ROOT_INO)
		return LINUX_S_ISDIR(inode->i_mode) && !strcmp(w->path, ".")
			       ? 0
			       : damaged(w, EXT2_ET_NO_DIRECTORY, "the root");
	if (LINUX_S_ISDIR(inode->i_mode))
		return mkdir(w->path, 0700) ? failed(w, "make folder") : 0;
	if (inode->i_links_count > 1 && (ret = link_to_first(w, ino)))
		return ret < 0 ? ret : 0;
	if (LINUX_S_ISREG(inode->i_mode))
		ret = make_regular(w, ino, inode);
	else if (LINUX_S_ISLNK(inode->i_mode))
		ret = make_symlink(w, ino, inode);
	else if (LINUX_S_ISCHR(inode->i_mode) || LINUX_S_ISBLK(inode->i_mode))
		ret = make_device(w, inode);
	else if (LINUX_S_ISFIFO(inode->i_mode) || LINUX_S_ISSOCK(inode->i_mode))
		ret = mknod(w->path, inode->i_mode, 0) ? failed(w, "make file") : 0;
	else
		ret = damaged(w, EXT2_ET_INVALID_ARGUMENT, "the kind");
	if (ret == 1)
		return 0;
	return ret ? ret : set_rest(w, ino, inode);
}

int image_files_extract(struct image_files *w, struct pil_err *err)
{
	w->visit = extract_one;
	w->leave = set_rest;
	return walk(w, err);
}

/* ---- what mke2fs leaves undone ---- */

static void put_time(const struct timespec *t, uint32_t *seconds, uint32_t *extra)
{
	*seconds = (uint32_t)t->tv_sec;
	*extra = (uint32_t)t->tv_nsec << 2 |
		 (uint32_t)((uint64_t)(t->tv_sec - (int32_t)t->tv_sec) >> 32 & 3);
}

static void put_id(uint32_t id, uint16_t *low, uint16_t *high)
{
	*low = (uint16_t)id;
	*high = (uint16_t)(id >> 16);
}

static int set_type(struct ext2_dir_entry *d, int offset, int blocksize, char *buf, void *data)
{
	const ext2_ino_t *wanted = data; /* inode and type */

	(void)offset;
	(void)blocksize;
	(void)buf;
	if (d->inode != wanted[0])
		return 0;
	ext2fs_dirent_set_file_type(d, (int)wanted[1]);
	return DIRENT_CHANGED;
}

/* The folder's entry names the kind of file, too. */
static errcode_t set_entry_type(struct image_files *w, ext2_ino_t ino, char type)
{
	ext2_ino_t parent, wanted[2] = {ino, type == 'b' ? EXT2_FT_BLKDEV : EXT2_FT_CHRDEV};
	_auto_free char *folder = strdup(w->path);
	errcode_t code;

	if (!folder)
		return ENOMEM;
	*strrchr(folder, '/') = '\0';
	code = ext2fs_namei(w->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, folder, &parent);
	return code ? code : ext2fs_dir_iterate(w->fs, parent, 0, NULL, set_type, wanted);
}

struct device {
	char type;
	uint32_t major, minor, mode, uid, gid;
};

/* The next number of *@text, at most @max. */
static bool take_number(char **text, int base, uint32_t max, uint32_t *out)
{
	const char *word = strsep(text, " ");
	unsigned long v;
	char *end;

	if (!word || !*word)
		return false;
	v = strtoul(word, &end, base);
	*out = (uint32_t)v;
	return !*end && v <= max;
}

static bool parse_device(char *text, struct device *d)
{
	const char *type = strsep(&text, " ");

	d->type = type[0];
	return (!strcmp(type, "b") || !strcmp(type, "c")) &&
	       take_number(&text, 10, 0xfff, &d->major) &&
	       take_number(&text, 10, 0xfffff, &d->minor) &&
	       take_number(&text, 8, 07777, &d->mode) &&
	       take_number(&text, 10, UINT32_MAX - 1, &d->uid) &&
	       take_number(&text, 10, UINT32_MAX - 1, &d->gid);
}

static errcode_t drop_mark(struct image_files *w, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	struct ext2_xattr_handle *handle;
	errcode_t code = ext2fs_xattrs_open(w->fs, ino, &handle);

	if (code)
		return code;
	code = ext2fs_xattrs_read(handle);
	if (!code)
		code = ext2fs_xattr_remove(handle, IMAGE_DEVICE_XATTR);
	ext2fs_xattrs_close(&handle);
	return code ? code
		    : ext2fs_read_inode_full(w->fs, ino, (struct ext2_inode *)inode,
					     sizeof(*inode));
}

/* Makes a device node of the file that stands for one. */
static int finish_device(struct image_files *w, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	char text[64] = "";
	struct device d;
	errcode_t code;

	if (lgetxattr(w->path, IMAGE_DEVICE_XATTR, text, sizeof(text) - 1) < 0 ||
	    !parse_device(text, &d))
		return 0;
	code = drop_mark(w, ino, inode);
	if (!code)
		code = set_entry_type(w, ino, d.type);
	if (code)
		return damaged(w, code, "the device");
	inode->i_mode = (uint16_t)(d.mode | (d.type == 'b' ? LINUX_S_IFBLK : LINUX_S_IFCHR));
	inode->i_flags &= ~(uint32_t)(EXT4_EXTENTS_FL | EXT4_INLINE_DATA_FL);
	put_id(d.uid, &inode->i_uid, &inode->osd2.linux2.l_i_uid_high);
	put_id(d.gid, &inode->i_gid, &inode->osd2.linux2.l_i_gid_high);
	memset(inode->i_block, 0, sizeof(inode->i_block));
	if (d.major < 256 && d.minor < 256)
		inode->i_block[0] = d.major << 8 | d.minor;
	else
		inode->i_block[1] = (d.minor & 0xff) | d.major << 8 | (d.minor & ~0xffu) << 12;
	return 0;
}

static int finish_one(struct image_files *w, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	struct stat st;
	errcode_t code;
	int ret = 0;

	if (lstat(w->path, &st))
		return failed(w, "look at");
	if (S_ISREG(st.st_mode) && st.st_size == 0 && st.st_uid == 0 && !(st.st_mode & 0777))
		ret = finish_device(w, ino, inode);
	if (ret)
		return ret;
	if (ino == EXT2_ROOT_INO) {
		inode->i_mode = (uint16_t)st.st_mode;
		put_id(st.st_uid, &inode->i_uid, &inode->osd2.linux2.l_i_uid_high);
		put_id(st.st_gid, &inode->i_gid, &inode->osd2.linux2.l_i_gid_high);
	}
	put_time(&st.st_atim, &inode->i_atime, &inode->i_atime_extra);
	put_time(&st.st_mtim, &inode->i_mtime, &inode->i_mtime_extra);
	put_time(&st.st_ctim, &inode->i_ctime, &inode->i_ctime_extra);
	code = ext2fs_write_inode_full(w->fs, ino, (struct ext2_inode *)inode, sizeof(*inode));
	return code ? damaged(w, code, "the inode") : 0;
}

static int finish_nothing(struct image_files *w, ext2_ino_t ino, struct ext2_inode_large *inode)
{
	(void)w;
	(void)ino;
	(void)inode;
	return 0;
}

int image_files_finish(struct image_files *w, struct pil_err *err)
{
	int ret;

	w->visit = finish_one;
	w->leave = finish_nothing;
	ret = walk(w, err);
	/* The image is a new file, so what was not written is zero: the kernel need not write zeros
	 * into each inode table, which would take the size of all of them on the host's disk. */
	for (dgrp_t g = 0; !ret && g < w->fs->group_desc_count; g++) {
		ext2fs_bg_flags_set(w->fs, g, EXT2_BG_INODE_ZEROED);
		ext2fs_group_desc_csum_set(w->fs, g);
	}
	if (!ret)
		ext2fs_mark_super_dirty(w->fs);
	return ret;
}
