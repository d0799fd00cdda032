/* SPDX-License-Identifier: Apache-2.0
 *
 * upload.c -- large data on its way to a device.
 *
 * With shared memory the data is copied once into a ring of slots that the executor has mapped, and
 * the next slot is filled while the executor empties the last one.  A fence behind each slot says
 * when it is ours again.  Slots are small enough to stay in the processors' cache between the two
 * copies.  Without shared memory the data goes from where it lies into the socket. */
#include "upload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "channel.h"
#include "fd.h"

int upload_shm_create(const char *name, uint64_t bytes, void **map)
{
	_auto_fd int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *p;

	if (fd < 0 || ftruncate(fd, (off_t)bytes) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	*map = p;
	return pil_take_fd(&fd);
}

static void staging_create(struct upload *up, struct channel *chan)
{
	const uint64_t bytes = (uint64_t)UPLOAD_SLOTS * UPLOAD_SLOT_BYTES;
	_auto_fd int fd = -1;
	void *map = NULL;

	up->tried = true;
	if (!(chan->welcome.flags & WIRE_WELCOME_SHM))
		return;
	fd = upload_shm_create("pillion-upload", bytes, &map);
	if (fd < 0)
		return;
	up->shm = channel_shm_add(chan, fd, bytes);
	if (up->shm)
		up->base = map;
	else
		munmap(map, bytes);
}

void upload_finish(struct upload *up)
{
	if (up->base)
		munmap(up->base, (uint64_t)UPLOAD_SLOTS * UPLOAD_SLOT_BYTES);
	memset(up, 0, sizeof(*up));
}

static void set_staged(struct upload *up, struct channel *chan, const struct wire_set *set,
		       const uint8_t *data, uint64_t bytes)
{
	static const struct wire_empty none;

	for (uint64_t at = 0; at < bytes && !chan->dead;) {
		uint32_t slot = up->next;
		uint64_t n = bytes - at < UPLOAD_SLOT_BYTES ? bytes - at : UPLOAD_SLOT_BYTES;
		struct wire_set_shm cmd = {.buffer = set->buffer,
					   .shm = up->shm,
					   .offset = set->offset + at,
					   .shm_offset = (uint64_t)slot * UPLOAD_SLOT_BYTES,
					   .bytes = n};

		up->next = (slot + 1) % UPLOAD_SLOTS;
		if (!channel_wait(chan, up->free_at[slot]))
			return;
		memcpy(up->base + cmd.shm_offset, data + at, n);
		channel_queue(chan, WIRE_OP_SET_SHM, &cmd, NULL, 0);
		up->free_at[slot] = channel_queue(chan, WIRE_OP_FENCE, &none, NULL, 0);
		channel_expect(chan, WIRE_OP_FENCE, NULL, NULL);
		channel_flush(chan);
		at += n;
	}
}

void upload_set(struct upload *up, struct channel *chan, uint32_t buffer, uint64_t offset,
		const void *data, uint64_t bytes)
{
	struct wire_set set = {.buffer = buffer, .offset = offset};
	const uint8_t *p = data;

	if (bytes > CHANNEL_MAX_INLINE && !up->tried)
		staging_create(up, chan);
	if (bytes > CHANNEL_MAX_INLINE && up->shm) {
		set_staged(up, chan, &set, p, bytes);
		return;
	}
	for (uint64_t at = 0; at < bytes && !chan->dead;) {
		uint64_t n = bytes - at < WIRE_MAX_DATA ? bytes - at : WIRE_MAX_DATA;

		set.offset = offset + at;
		channel_queue(chan, WIRE_OP_SET, &set, p + at, (uint32_t)n);
		at += n;
	}
}
