/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: memory and files are mapped as a whole when they are added.  The peer keeps
 * its descriptor and can write at any time, which is only data.  What it must not be able to do is
 * make us fault: hence memory is sealed against shrinking, and nothing but plain shared memory; for
 * files, and for what is left, see file_map.h. */
#include "exec/shms.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <linux/magic.h>

#ifndef F_ADD_SEALS /* glibc has it under fcntl-linux.h with _GNU_SOURCE; musl too */
#error "no file seals"
#endif

void shms_init(struct shms *shms, struct account *account)
{
	*shms = (struct shms){.account = account};
}

static void drop(struct shms *shms, struct shm *shm)
{
	if (shm->map && !shm->is_file)
		account_unshare(shms->account, shm->bytes);
	file_map_drop(shm->map);
	*shm = (struct shm){0};
}

void shms_finish(struct shms *shms)
{
	for (int i = 0; i < WIRE_MAX_SHM; i++)
		drop(shms, &shms->slots[i]);
}

struct shm *shms_find(struct shms *shms, uint32_t handle)
{
	uint32_t slot = wire_slot(handle);

	if (handle == 0 || slot >= WIRE_MAX_SHM || shms->slots[slot].handle != handle)
		return NULL;
	return &shms->slots[slot];
}

bool shms_drop(struct shms *shms, uint32_t handle)
{
	struct shm *shm = shms_find(shms, handle);

	if (shm)
		drop(shms, shm);
	return shm != NULL;
}

bool shms_lost(struct shms *shms)
{
	for (int i = 0; i < WIRE_MAX_SHM; i++)
		if (!shms->slots[i].is_file && file_map_lost(shms->slots[i].map))
			return true;
	return false;
}

static bool acceptable(int fd, uint64_t bytes)
{
	struct statfs fs;
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & F_SEAL_SHRINK) && fstatfs(fd, &fs) == 0 &&
	       fs.f_type == TMPFS_MAGIC && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	       st.st_size >= 0 && bytes <= (uint64_t)st.st_size;
}

static enum wire_status map_file(struct shms *shms, struct shm *shm, int fd)
{
	if (!file_map_acceptable(fd, shm->bytes))
		return WIRE_E_UNSUPPORTED;
	shm->is_file = true;
	shm->map = file_map_open(fd, shm->bytes, &shms->account->n_mappings,
				 &shms->account->mapped_bytes);
	return shm->map ? WIRE_OK : WIRE_E_NO_MEMORY;
}

static enum wire_status map_memory(struct shms *shms, struct shm *shm, int fd)
{
	if (!acceptable(fd, shm->bytes))
		return WIRE_E_UNSUPPORTED;
	if (!account_share(shms->account, shm->bytes))
		return WIRE_E_NO_MEMORY;
	shm->map = file_map_open_memory(fd, shm->bytes, &shms->account->n_mappings);
	if (!shm->map)
		account_unshare(shms->account, shm->bytes);
	return shm->map ? WIRE_OK : WIRE_E_NO_MEMORY;
}

bool shms_add(struct shms *shms, const struct wire_shm_add *add, int fd, enum wire_status *status)
{
	struct shm shm = {.handle = add->shm, .bytes = add->bytes};
	uint32_t slot = wire_slot(add->shm);

	if (fd < 0 || add->shm == 0 || slot >= WIRE_MAX_SHM || shms->slots[slot].handle ||
	    add->bytes == 0)
		return false;
	*status = add->kind == WIRE_SHM_FILE     ? map_file(shms, &shm, fd)
		  : add->kind == WIRE_SHM_MEMORY ? map_memory(shms, &shm, fd)
						 : WIRE_E_UNSUPPORTED;
	if (*status == WIRE_OK)
		shms->slots[slot] = shm;
	return true;
}
