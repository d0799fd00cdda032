/* SPDX-License-Identifier: Apache-2.0
 *
 * upload.c -- large data on its way to a device.
 *
 * With shared memory the data is copied once into a ring that the executor has mapped, and the next
 * span of it is filled while the executor empties the last one.  A fence behind each span says when
 * it is ours again.  Pieces are small and go round in a small part of the ring, so that it stays in
 * the processors' cache between the two copies and little memory is touched for the first time.
 * A weight in a file that the program has mapped is not copied at all: the executor gets the file
 * and maps it too.  Without shared memory the data goes from where it lies into the socket. */
#include "link/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "link/channel.h"
#include "link/mapped_file.h"

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
	const uint64_t bytes = UPLOAD_RING_BYTES;
	_auto_fd int fd = -1;
	void *map = NULL;

	up->tried = true;
	if (!(chan->welcome.flags & WIRE_WELCOME_SHM))
		return;
	fd = upload_shm_create("pillion-upload", bytes, &map);
	if (fd < 0)
		return;
	up->shm = channel_shm_add(chan, fd, bytes, WIRE_SHM_MEMORY);
	if (up->shm)
		up->base = map;
	else
		munmap(map, bytes);
}

void upload_finish(struct upload *up)
{
	if (up->base)
		munmap(up->base, UPLOAD_RING_BYTES);
	memset(up, 0, sizeof(*up));
}

/* Waits until the oldest span is free. */
static bool retire(struct upload *up, struct channel *chan)
{
	if (!channel_wait(chan, up->spans[up->first].seq))
		return false;
	up->first = (up->first + 1) % UPLOAD_MAX_SPANS;
	up->n--;
	return true;
}

/* A span of @bytes that nobody uses; false: the channel is dead. */
static bool take_span(struct upload *up, struct channel *chan, uint64_t bytes, uint64_t *start)
{
	uint64_t window = bytes > UPLOAD_PIECE_BYTES ? UPLOAD_RING_BYTES : UPLOAD_WINDOW_BYTES;

	if (up->cursor + bytes > window)
		up->cursor = 0;
	while (up->n == UPLOAD_MAX_SPANS)
		if (!retire(up, chan))
			return false;
	for (uint32_t i = 0; i < up->n;) {
		const struct upload_span *s = &up->spans[(up->first + i) % UPLOAD_MAX_SPANS];

		if (s->start < up->cursor + bytes && up->cursor < s->end) {
			if (!retire(up, chan)) /* in order: all older ones go first */
				return false;
			i = 0;
		} else {
			i++;
		}
	}
	*start = up->cursor;
	up->cursor += (bytes + 63) & ~(uint64_t)63;
	return true;
}

static void set_staged(struct upload *up, struct channel *chan, const struct wire_set *set,
		       const uint8_t *data, uint64_t bytes, uint64_t piece)
{
	static const struct wire_empty none;

	for (uint64_t at = 0; at < bytes && !chan->dead;) {
		uint64_t n = bytes - at < piece ? bytes - at : piece;
		struct wire_set_shm cmd = {.buffer = set->buffer,
					   .shm = up->shm,
					   .offset = set->offset + at,
					   .bytes = n};
		uint64_t seq;

		if (!take_span(up, chan, n, &cmd.shm_offset))
			return;
		memcpy(up->base + cmd.shm_offset, data + at, n);
		channel_queue(chan, WIRE_OP_SET_SHM, &cmd, NULL, 0);
		seq = channel_queue(chan, WIRE_OP_FENCE, &none, NULL, 0);
		channel_expect(chan, WIRE_OP_FENCE, NULL, NULL);
		channel_flush(chan);
		up->spans[(up->first + up->n++) % UPLOAD_MAX_SPANS] =
			(struct upload_span){cmd.shm_offset, cmd.shm_offset + n, seq};
		at += n;
	}
}

/* The executor's handle of @file, announced if it is not yet; 0: it does not want it. */
static struct upload_file *file_of(struct upload *up, struct channel *chan,
				   const struct mapped_file *file)
{
	struct upload_file *slot;
	_auto_fd int fd = -1;

	for (int i = 0; i < UPLOAD_MAX_FILES; i++) {
		slot = &up->files[i];
		if (slot->shm && slot->device == file->device && slot->inode == file->inode)
			return slot;
	}
	slot = &up->files[up->next_file];
	if (slot->shm)
		channel_shm_drop(chan, slot->shm);
	*slot = (struct upload_file){.device = file->device, .inode = file->inode};
	fd = mapped_file_open(file, &slot->bytes);
	if (fd < 0 || !slot->bytes)
		return NULL;
	slot->shm = channel_shm_add(chan, fd, slot->bytes, WIRE_SHM_FILE);
	if (!slot->shm)
		return NULL;
	up->next_file = (up->next_file + 1) % UPLOAD_MAX_FILES;
	return slot;
}

bool upload_mapped(struct upload *up, struct channel *chan, const struct wire_set *set,
		   const void *data, uint64_t bytes)
{
	struct mapped_file file;
	const struct upload_file *f;

	if (!(chan->welcome.flags & WIRE_WELCOME_SHM) || up->no_files ||
	    !mapped_file_find(data, bytes, UPLOAD_COSTLY_FILE_BYTES, &file))
		return false;
	f = file_of(up, chan, &file);
	if (!f) {
		up->no_files = true;
		return false;
	}
	if (file.offset > f->bytes || bytes > f->bytes - file.offset)
		return false;
	channel_queue(chan, WIRE_OP_SET_SHM,
		      &(struct wire_set_shm){.buffer = set->buffer,
					     .shm = f->shm,
					     .offset = set->offset,
					     .shm_offset = file.offset,
					     .bytes = bytes},
		      NULL, 0);
	return true;
}

void upload_set(struct upload *up, struct channel *chan, const struct wire_set *set,
		const void *data, uint64_t bytes, bool whole)
{
	struct wire_set part = *set;
	const uint8_t *p = data;

	if (bytes > CHANNEL_MAX_INLINE && !up->tried)
		staging_create(up, chan);
	if (bytes > CHANNEL_MAX_INLINE && up->shm) {
		set_staged(up, chan, set, p, bytes,
			   whole && bytes <= UPLOAD_MAX_WHOLE ? bytes : UPLOAD_PIECE_BYTES);
		return;
	}
	for (uint64_t at = 0; at < bytes && !chan->dead;) {
		uint64_t n = bytes - at < WIRE_MAX_DATA ? bytes - at : WIRE_MAX_DATA;

		part.offset = set->offset + at;
		channel_queue(chan, WIRE_OP_SET, &part, p + at, (uint32_t)n);
		at += n;
	}
}
