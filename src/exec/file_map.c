/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: reading a mapping beyond the end of its file raises SIGBUS, and the owner of
 * a file can cut it at any moment; so does touching a hole of shared memory where the kernel has
 * promised all it has (vm.overcommit_memory=2).  The handler finds the mapping in a table of fixed
 * size, which it can read without a lock, and puts zeroes in its place; the thread that faulted
 * goes on.  A fault anywhere else is a fault of ours and ends the process as ever.
 *
 * A slot is taken and given back under a mutex; the handler only sees its two numbers, the length
 * written last and cleared first.  A length that is the same before and after the base was read
 * belongs to it: both were a live mapping, which overlaps no other.
 *
 * A file is mapped as a whole, as programs do it themselves, and not weight by weight: the kernel
 * then puts it where its huge pages fit.  With a mapping per weight, those below 2 MiB had small
 * pages only, and products that are bound by memory ran at 20 GB/s instead of 34. */
#include "exec/file_map.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "base/compiler.h"
#include "exec/mapping.h"

/* Of file systems that linux/magic.h leaves to their own headers. */
#define BCACHEFS_MAGIC 0xca451a4e
#define NTFS3_MAGIC    0x7366746e
#define ZFS_MAGIC      0x2fc12fc1
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

enum { MAX_MAPS = 1 << 16 };

static_assert(MAX_MAPS >= (int)MAPPING_MAX, "there is a slot for each");

struct file_map {
	char *base;
	uint64_t len_bytes;       /* of whole pages */
	_Atomic(uint32_t) *n;     /* counted there */
	_Atomic(uint64_t) *total; /* and its bytes there; NULL: by others */
	unsigned n_users;
	int slot; /* in the table of the fault handler */
};

struct slot {
	_Atomic(uintptr_t) base;
	_Atomic(uint64_t) len_bytes; /* 0: free */
	_Atomic(int) prot;
	_Atomic(bool) lost;
};

static struct slot table[MAX_MAPS];
static int next_slot, n_used;
static atomic_uint n_lost;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static void on_bus_error(int signo, siginfo_t *info, void *context)
{
	uintptr_t at = (uintptr_t)info->si_addr;

	(void)context;
	for (int i = 0; i < MAX_MAPS; i++) {
		uint64_t len = atomic_load(&table[i].len_bytes);
		uintptr_t base = atomic_load(&table[i].base);

		if (!len || at - base >= len || atomic_load(&table[i].len_bytes) != len)
			continue;
		if (mmap((void *)base, len, atomic_load(&table[i].prot),
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
			 0) == MAP_FAILED)
			break;
		if (!atomic_exchange(&table[i].lost, true))
			atomic_fetch_add(&n_lost, 1);
		return;
	}
	signal(signo, SIG_DFL); /* the instruction faults again, for good */
}

/* Each time: a library may have put its own there. */
static void install_handler(void)
{
	struct sigaction sa = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_RESTART};

	sigaction(SIGBUS, &sa, NULL);
}

static int take_slot(char *base, uint64_t len_bytes, int prot)
{
	int slot = -1;

	pthread_mutex_lock(&table_lock);
	if (n_used < MAX_MAPS) {
		while (atomic_load(&table[next_slot].len_bytes))
			next_slot = (next_slot + 1) % MAX_MAPS;
		slot = next_slot;
		n_used++;
		atomic_store(&table[slot].lost, false);
		atomic_store(&table[slot].prot, prot);
		atomic_store(&table[slot].base, (uintptr_t)base);
		atomic_store(&table[slot].len_bytes, len_bytes);
	}
	pthread_mutex_unlock(&table_lock);
	return slot;
}

static void give_slot(int slot)
{
	pthread_mutex_lock(&table_lock);
	atomic_store(&table[slot].len_bytes, 0);
	n_used--;
	pthread_mutex_unlock(&table_lock);
}

/* A list of what is good, because what is not comes in more kinds than one knows: FUSE lets a peer
 * serve the pages; pages of hugetlbfs cannot be replaced one by one after a fault. */
static bool known_file_system(int fd)
{
	static const uint32_t good[] = {
		BCACHEFS_MAGIC,       BTRFS_SUPER_MAGIC, CIFS_SUPER_MAGIC, EROFS_SUPER_MAGIC_V1,
		EXFAT_SUPER_MAGIC,    EXT4_SUPER_MAGIC,  F2FS_SUPER_MAGIC, ISOFS_SUPER_MAGIC,
		MSDOS_SUPER_MAGIC,    NFS_SUPER_MAGIC,   NTFS3_MAGIC,      OVERLAYFS_SUPER_MAGIC,
		REISERFS_SUPER_MAGIC, SMB2_SUPER_MAGIC,  SQUASHFS_MAGIC,   TMPFS_MAGIC,
		UDF_SUPER_MAGIC,      V9FS_MAGIC,        XFS_SUPER_MAGIC,  ZFS_MAGIC,
	};
	struct statfs fs;

	if (fstatfs(fd, &fs))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if ((uint32_t)fs.f_type == good[i])
			return true;
	return false;
}

bool file_map_acceptable(int fd, uint64_t bytes)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && known_file_system(fd) &&
	       st.st_size >= 0 && bytes <= (uint64_t)st.st_size;
}

static void *map_memory(int fd, uint64_t bytes)
{
	return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static void *map_counted(int fd, uint64_t bytes, _Atomic(uint64_t) *total)
{
	uint64_t others = atomic_fetch_add(total, bytes);
	void *base = MAP_FAILED;

	if (others <= FILE_MAP_MAX_BYTES && bytes <= FILE_MAP_MAX_BYTES - others)
		base = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	if (base == MAP_FAILED)
		atomic_fetch_sub(total, bytes);
	return base;
}

static void unmap_counted(void *base, uint64_t bytes, _Atomic(uint64_t) *total)
{
	munmap(base, bytes);
	if (total)
		atomic_fetch_sub(total, bytes);
}

/* @total NULL: memory. */
static struct file_map *open_map(int fd, uint64_t bytes, _Atomic(uint32_t) *n,
				 _Atomic(uint64_t) *total)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct file_map *map = calloc(1, sizeof(*map));
	void *base;

	if (!map || !mapping_take(n)) {
		free(map);
		return NULL;
	}
	install_handler();
	map->n_users = 1;
	map->n = n;
	map->total = total;
	map->len_bytes = (bytes + page - 1) & ~(page - 1);
	base = total ? map_counted(fd, map->len_bytes, total) : map_memory(fd, map->len_bytes);
	if (base != MAP_FAILED) {
		map->base = base;
		map->slot = take_slot(map->base, map->len_bytes,
				      total ? PROT_READ : PROT_READ | PROT_WRITE);
		if (map->slot >= 0)
			return map;
		unmap_counted(map->base, map->len_bytes, total);
	}
	mapping_give(n);
	free(map);
	return NULL;
}

struct file_map *file_map_open(int fd, uint64_t bytes, _Atomic(uint32_t) *n,
			       _Atomic(uint64_t) *total)
{
	return open_map(fd, bytes, n, total);
}

struct file_map *file_map_open_memory(int fd, uint64_t bytes, _Atomic(uint32_t) *n)
{
	return open_map(fd, bytes, n, NULL);
}

char *file_map_memory(struct file_map *map)
{
	install_handler();
	return map->base;
}

struct file_map *file_map_keep(struct file_map *map)
{
	map->n_users++;
	return map;
}

void file_map_drop(struct file_map *map)
{
	if (!map || --map->n_users)
		return;
	give_slot(map->slot);
	unmap_counted(map->base, map->len_bytes, map->total);
	mapping_give(map->n);
	free(map);
}

const void *file_map_at(struct file_map *map, uint64_t offset, uint64_t bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), before = offset & (page - 1);

	install_handler();
	/* A kernel that does not know how makes them one by one later. */
	madvise(map->base + offset - before, before + bytes, MADV_POPULATE_READ);
	return map->base + offset;
}

bool file_map_lost(const struct file_map *map)
{
	return map && atomic_load(&table[map->slot].lost);
}

unsigned file_map_n_lost(void)
{
	return atomic_load_explicit(&n_lost, memory_order_relaxed);
}
