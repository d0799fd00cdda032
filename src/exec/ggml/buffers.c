/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a buffer is one allocation of the device's own buffer type, the *plain* one.
 * Where a device has buffer types in which matrix products run faster (the CPU's AMX and repacked
 * layouts), llama.cpp would place each weight there when it runs natively; a program in a machine
 * sees one buffer type only, so the placing is done here, per weight:
 *
 *   announced (GG_OP_WEIGHT) -> data arrives in the plain buffer -> complete -> converted into
 * the shadow buffer of the first extra type that supports the product -> its plain pages given
 * back.  Only whole pages can be: what is left of the weight at its ends, or all of a small one,
 * takes memory in both places and is held on the account (account_hold()).
 *
 * Data that arrives in one piece is converted straight from where it arrived.  Where it arrives as
 * part of a file, and nothing better is to be had than the plain layout, the weight stays in the
 * file, mapped: it is *lent*, as llama.cpp lends it to the CPU natively.  A tensor inside a lent
 * weight uses that memory; data that lies across its ends brings it back to the plain buffer, and
 * so does writing to it, by a command or as the result of a node.  Data that is looked at before it
 * is used, as indices are, never stays lent: the owner of the file could change it in between. What
 * the weight is used for decides, as it does in llama.cpp: only those the program asked about as
 * the left side of a matrix product, and for nothing else, are converted, because a converted
 * weight cannot be read back, nor used by other operations. */
#include "exec/ggml/buffers.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api/ggml/tensor_ops.h"
#include "base/log.h"
#include "exec/mapping.h"

enum {
	LENT_ALIGNMENT = 32, /* what ggml's CPU back end wants, and GGUF files give */
	BUFFER_HELD_BYTES = sizeof(struct gg_buffer) + 512, /* of ours and ggml's, for each */
	WEIGHT_HELD_BYTES = sizeof(struct weight) + 32,     /* with malloc()'s own and a pointer */
};

void buffers_init(struct buffers *b, struct gg_device *device, struct account *account)
{
	memset(b, 0, sizeof(*b));
	b->device = device;
	b->account = account;
	b->n_lost = file_map_n_lost();
}

static char *page_before(char *p)
{
	return p - (uintptr_t)p % (uintptr_t)sysconf(_SC_PAGESIZE);
}

static char *page_after(char *p)
{
	return page_before(p + sysconf(_SC_PAGESIZE) - 1);
}

/* How much of [start, start + bytes) can be given back. */
static uint64_t whole_pages(const struct buffers *b, char *start, uint64_t bytes)
{
	char *first = page_after(start), *last = page_before(start + bytes);

	return b->device->reference && b->device->host_memory && first < last
		       ? (uint64_t)(last - first)
		       : 0;
}

/* Whole pages of memory of the host go back to the kernel, and are zeroes when they are touched
 * again.  Costs nothing where none has been.  False: not done. */
static bool give_pages_back(const struct buffers *b, char *start, uint64_t bytes)
{
	uint64_t n = whole_pages(b, start, bytes);

	return n && madvise(page_after(start), n, MADV_DONTNEED) == 0;
}

/* Of @bytes; NULL: no memory, or the machine has too many. */
static struct ggml_backend_buffer *new_buffer(struct buffers *b,
					      struct ggml_backend_buffer_type *type, uint64_t bytes)
{
	struct ggml_backend_buffer *buffer;

	if (!mapping_take(&b->account->n_mappings))
		return NULL;
	buffer = b->device->host->api.ggml_backend_buft_alloc_buffer(type, bytes);
	if (!buffer)
		mapping_give(&b->account->n_mappings);
	return buffer;
}

static void free_buffer(struct buffers *b, struct ggml_backend_buffer *buffer)
{
	b->device->host->api.ggml_backend_buffer_free(buffer);
	mapping_give(&b->account->n_mappings);
}

/* True: there is memory for the weight elsewhere. */
static bool stop_lending(struct buffers *b, struct gg_buffer *buffer, struct weight *w)
{
	if (!w->lent)
		return true;
	file_map_drop(w->lent);
	w->lent = NULL;
	buffer->n_lent--;
	b->n_lent--;
	return account_commit(b->account, w->uncommitted);
}

static void drop_weight(struct buffers *b, struct gg_buffer *buffer, struct weight *w)
{
	stop_lending(b, buffer, w);
	if (w->own_buffer) {
		free_buffer(b, w->own_buffer);
		account_refund(b->account, w->own_extra);
		account_unhold(b->account, w->own_held);
	} else if (w->placed) {
		give_pages_back(b, w->tensor.data, w->bytes);
	}
}

static void release(struct buffers *b, struct gg_buffer *buffer)
{
	b->epoch++;
	for (uint32_t i = 0; i < buffer->n_weights; i++) {
		drop_weight(b, buffer, buffer->weights[i]);
		free(buffer->weights[i]);
	}
	b->n_weights -= buffer->n_weights;
	for (int i = 0; i < DEVICE_MAX_EXTRA; i++) {
		if (buffer->shadow[i])
			free_buffer(b, buffer->shadow[i]);
		account_unhold(b->account, buffer->shadow_held[i]);
	}
	free_buffer(b, buffer->plain);
	account_refund(b->account, buffer->bytes);
	account_unhold(b->account, BUFFER_HELD_BYTES + buffer->cap_weights * WEIGHT_HELD_BYTES);
	free(buffer->weights);
	free(buffer);
}

void buffers_finish(struct buffers *b)
{
	for (int i = 0; i < WIRE_MAX_BUFFERS; i++) {
		if (b->slots[i])
			release(b, b->slots[i]);
		b->slots[i] = NULL;
	}
}

struct gg_buffer *buffers_find(struct buffers *b, uint32_t handle)
{
	uint32_t slot = wire_slot(handle);

	if (slot >= WIRE_MAX_BUFFERS || !b->slots[slot] || b->slots[slot]->handle != handle)
		return NULL;
	return b->slots[slot];
}

/* Nobody may find what another machine left behind: not even large allocations of the C library are
 * always fresh pages. */
static void clear_new(struct buffers *b, struct gg_buffer *buffer)
{
	char *start = buffer->base, *end = start + buffer->bytes;

	if (give_pages_back(b, start, buffer->bytes)) {
		memset(start, 0, (size_t)(page_after(start) - start));
		memset(page_before(end), 0, (size_t)(end - page_before(end)));
	} else {
		b->device->host->api.ggml_backend_buffer_clear(buffer->plain, 0);
	}
}

enum wire_status buffers_alloc(struct buffers *b, uint32_t handle, uint64_t bytes)
{
	const struct ggml_api *api = &b->device->host->api;
	uint32_t slot = wire_slot(handle);
	struct gg_buffer *buffer;

	if (handle == 0 || slot >= WIRE_MAX_BUFFERS || b->slots[slot] || bytes == 0 ||
	    bytes > b->device->max_buffer)
		return WIRE_E_INVALID;
	if (!account_hold(b->account, BUFFER_HELD_BYTES))
		return WIRE_E_NO_MEMORY;
	if (!account_charge(b->account, bytes)) {
		account_unhold(b->account, BUFFER_HELD_BYTES);
		return WIRE_E_NO_MEMORY;
	}
	buffer = calloc(1, sizeof(*buffer));
	if (buffer)
		buffer->plain = new_buffer(b, b->device->buft, bytes);
	if (!buffer || !buffer->plain) {
		free(buffer);
		account_refund(b->account, bytes);
		account_unhold(b->account, BUFFER_HELD_BYTES);
		return WIRE_E_NO_MEMORY;
	}
	buffer->handle = handle;
	buffer->bytes = bytes;
	buffer->base = api->ggml_backend_buffer_get_base(buffer->plain);
	buffer->flat = (struct ggml_tensor){
		.type = GGML_T_I8,
		.buffer = buffer->plain,
		.ne = {(int64_t)bytes, 1, 1, 1},
		.nb = {1, bytes, bytes, bytes},
		.data = buffer->base,
	};
	clear_new(b, buffer);
	b->slots[slot] = buffer;
	return WIRE_OK;
}

bool buffers_free(struct buffers *b, uint32_t handle)
{
	struct gg_buffer *buffer = buffers_find(b, handle);

	if (!buffer)
		return false;
	b->slots[wire_slot(handle)] = NULL;
	release(b, buffer);
	return true;
}

/* Index of the first weight that ends after @offset. */
static uint32_t weight_index(const struct gg_buffer *buffer, uint64_t offset)
{
	uint32_t lo = 0, hi = buffer->n_weights;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		const struct weight *w = buffer->weights[mid];

		if (w->offset + w->bytes <= offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct weight *gg_buffer_weight_at(struct gg_buffer *buffer, uint64_t offset)
{
	uint32_t i = weight_index(buffer, offset);

	return i < buffer->n_weights && buffer->weights[i]->offset == offset ? buffer->weights[i]
									     : NULL;
}

bool gg_buffer_touches_placed(struct gg_buffer *buffer, uint64_t offset, uint64_t bytes)
{
	for (uint32_t i = weight_index(buffer, offset);
	     i < buffer->n_weights && buffer->weights[i]->offset < offset + bytes; i++)
		if (buffer->weights[i]->placed)
			return true;
	return false;
}

/* A lent weight moves to its place in the plain buffer. */
static void take_back(struct buffers *b, struct gg_buffer *buffer, struct weight *w)
{
	struct file_map *file = w->lent;
	const void *data = w->tensor.data;

	if (!file)
		return;
	file_map_keep(file);
	if (stop_lending(b, buffer, w))
		memcpy(buffer->base + w->offset, data, w->bytes);
	else
		b->starved = true;
	file_map_drop(file);
	w->tensor.data = buffer->base + w->offset;
	b->epoch++;
}

char *gg_buffer_at(struct buffers *b, struct gg_buffer *buffer, uint64_t offset, uint64_t bytes)
{
	if (!buffer->n_lent)
		return buffer->base + offset;
	for (uint32_t i = weight_index(buffer, offset);
	     i < buffer->n_weights && buffer->weights[i]->offset < offset + bytes; i++) {
		struct weight *w = buffer->weights[i];

		if (w->lent && offset >= w->offset && bytes <= w->bytes - (offset - w->offset))
			return (char *)w->tensor.data + (offset - w->offset);
		take_back(b, buffer, w);
	}
	return buffer->base + offset;
}

void gg_buffer_own(struct buffers *b, struct gg_buffer *buffer, uint64_t offset, uint64_t bytes)
{
	if (!buffer->n_lent)
		return;
	for (uint32_t i = weight_index(buffer, offset);
	     i < buffer->n_weights && buffer->weights[i]->offset < offset + bytes; i++)
		take_back(b, buffer, buffer->weights[i]);
}

static bool file_lost(struct buffers *b)
{
	unsigned n_lost = file_map_n_lost();

	if (b->n_lost == n_lost)
		return false;
	b->n_lost = n_lost;
	for (int i = 0; i < WIRE_MAX_BUFFERS; i++)
		for (uint32_t j = 0; b->slots[i] && j < b->slots[i]->n_weights; j++)
			if (file_map_lost(b->slots[i]->weights[j]->lent))
				return true;
	return false;
}

const char *buffers_fault(struct buffers *b)
{
	if (b->starved)
		return "no memory for a weight that was in its file";
	return file_lost(b) ? "its file of weights was cut short" : NULL;
}

/* Checks the shape and makes the tensor; false: not a weight this device can have. */
static bool shape_weight(struct buffers *b, struct gg_buffer *buffer, const struct wire_weight *a,
			 struct weight *w)
{
	const struct graph_types *types = &b->device->host->types;
	uint64_t row, bytes;
	int64_t n_rows = 1;

	if (a->type >= WIRE_MAX_TYPES || !types->block[a->type])
		return false;
	for (int i = 0; i < WIRE_MAX_DIMS; i++)
		if (a->ne[i] < 1 || a->ne[i] > INT32_MAX)
			return false;
	if (a->ne[0] % types->block[a->type])
		return false;
	row = (uint64_t)a->ne[0] / types->block[a->type] * types->bytes[a->type];
	for (int i = 1; i < WIRE_MAX_DIMS; i++)
		if (__builtin_mul_overflow(n_rows, a->ne[i], &n_rows))
			return false;
	if (__builtin_mul_overflow(row, (uint64_t)n_rows, &bytes) ||
	    !gg_buffer_holds(buffer, a->offset, bytes) || a->offset % b->device->alignment)
		return false;
	*w = (struct weight){.offset = a->offset, .bytes = bytes, .uses = a->uses};
	w->tensor.type = (int)a->type;
	memcpy(w->tensor.ne, a->ne, sizeof(w->tensor.ne));
	w->tensor.nb[0] = types->bytes[a->type];
	w->tensor.nb[1] = row;
	w->tensor.nb[2] = row * (uint64_t)a->ne[1];
	w->tensor.nb[3] = w->tensor.nb[2] * (uint64_t)a->ne[2];
	return true;
}

static void remove_weights(struct buffers *b, struct gg_buffer *buffer, uint32_t first,
			   uint32_t end)
{
	b->epoch++;
	for (uint32_t i = first; i < end; i++) {
		take_back(b, buffer, buffer->weights[i]);
		drop_weight(b, buffer, buffer->weights[i]);
		free(buffer->weights[i]);
	}
	if (first == end)
		return; /* there may be no array at all */
	memmove(buffer->weights + first, buffer->weights + end,
		(buffer->n_weights - end) * sizeof(*buffer->weights));
	buffer->n_weights -= end - first;
	b->n_weights -= end - first;
}

static bool more_weights(struct buffers *b, struct gg_buffer *buffer)
{
	uint32_t cap = buffer->cap_weights ? buffer->cap_weights * 2 : 16;
	uint64_t bytes = (cap - buffer->cap_weights) * WEIGHT_HELD_BYTES;
	struct weight **more;

	if (cap > WIRE_MAX_TENSORS || !account_hold(b->account, bytes))
		return false;
	more = reallocarray(buffer->weights, cap, sizeof(*more));
	if (!more) {
		account_unhold(b->account, bytes);
		return false;
	}
	buffer->weights = more;
	buffer->cap_weights = cap;
	return true;
}

/* Where the weight goes that takes the place of those from @first up to @end; NULL: no memory.  One
 * for one is done in place: a model that is loaded again announces all its weights again, and the
 * others must not move each time. */
static struct weight *add_weight(struct buffers *b, struct gg_buffer *buffer, uint32_t first,
				 uint32_t end)
{
	struct weight *kept;

	if (end == first + 1) {
		b->epoch++;
		take_back(b, buffer, buffer->weights[first]);
		drop_weight(b, buffer, buffer->weights[first]);
		return buffer->weights[first];
	}
	remove_weights(b, buffer, first, end);
	if (b->n_weights == WIRE_MAX_TENSORS)
		return NULL;
	if (buffer->n_weights == buffer->cap_weights && !more_weights(b, buffer))
		return NULL;
	kept = malloc(sizeof(*kept));
	if (!kept)
		return NULL;
	memmove(buffer->weights + first + 1, buffer->weights + first,
		(buffer->n_weights - first) * sizeof(*buffer->weights));
	buffer->weights[first] = kept;
	buffer->n_weights++;
	b->n_weights++;
	return kept;
}

enum wire_status gg_buffer_weight(struct buffers *b, struct gg_buffer *buffer,
				  const struct wire_weight *announced)
{
	const struct ggml_api *api = &b->device->host->api;
	struct weight w, *kept;
	uint32_t first, end;

	if (!shape_weight(b, buffer, announced, &w))
		return WIRE_E_INVALID;
	first = end = weight_index(buffer, w.offset);
	while (end < buffer->n_weights && buffer->weights[end]->offset < w.offset + w.bytes)
		end++;
	kept = add_weight(b, buffer, first, end);
	if (!kept)
		return WIRE_E_NO_MEMORY;
	w.tensor.buffer = buffer->plain;
	w.tensor.data = buffer->base + w.offset;
	*kept = w;
	api->ggml_backend_buffer_set_usage(buffer->plain, GGML_USAGE_WEIGHTS);
	if (!b->device->n_extra && !b->device->reference)
		api->ggml_backend_buffer_init_tensor(buffer->plain, &kept->tensor);
	return WIRE_OK;
}

/* Would the device run the product @w is used for if @w lay in extra buffer type @type?  What is
 * multiplied with a matrix per head is permuted in most models, which AMX does not take. */
static bool extra_supports(struct gg_device *device, int type, const struct weight *w)
{
	const struct ggml_host *host = device->host;
	bool experts = w->uses & WIRE_USE_MUL_MAT_ID;
	struct ggml_tensor left = w->tensor, right = {0}, ids = {0}, product = {0};
	const int64_t batch = 512, n_used = 2;

	if (!experts && (left.ne[2] != 1 || left.ne[3] != 1))
		return false;
	left.buffer = device->extra_probe[type];
	left.data = NULL;
	right.type = GGML_T_F32;
	right.ne[0] = left.ne[0];
	right.ne[1] = experts ? n_used : batch;
	right.ne[2] = experts ? batch : left.ne[2];
	right.ne[3] = experts ? 1 : left.ne[3];
	right.nb[0] = sizeof(float);
	for (int i = 1; i < 4; i++)
		right.nb[i] = right.nb[i - 1] * (size_t)right.ne[i - 1];
	ids = right;
	ids.type = GGML_T_I32;
	ids.ne[0] = n_used;
	ids.ne[1] = batch;
	ids.ne[2] = ids.ne[3] = 1;
	ids.nb[1] = sizeof(int32_t) * (size_t)n_used;
	ids.nb[2] = ids.nb[3] = ids.nb[1] * (size_t)batch;
	product = right;
	product.ne[0] = left.ne[1];
	for (int i = 1; i < 4; i++)
		product.nb[i] = product.nb[i - 1] * (size_t)product.ne[i - 1];
	product.op = host->op_to_host[experts ? WIRE_T_MUL_MAT_ID : WIRE_T_MUL_MAT];
	product.src[0] = &left;
	product.src[1] = &right;
	product.src[2] = experts ? &ids : NULL;
	return host->api.ggml_backend_dev_supports_op(device->dev, &product);
}

/* A weight that is larger there than plain has a buffer to itself. */
static struct ggml_backend_buffer *own_room(struct buffers *b, int type, struct weight *w,
					    char *plain, uint64_t bytes, void **data)
{
	const struct ggml_api *api = &b->device->host->api;
	uint64_t extra = bytes - w->bytes;
	uint64_t kept = w->bytes - whole_pages(b, plain, w->bytes);

	if (w->own_buffer || !account_hold(b->account, kept))
		return NULL;
	if (account_charge(b->account, extra)) {
		w->own_buffer = new_buffer(b, b->device->extra[type], bytes);
		if (!w->own_buffer)
			account_refund(b->account, extra);
	}
	if (!w->own_buffer) {
		account_unhold(b->account, kept);
		return NULL;
	}
	w->own_extra = extra;
	w->own_held = kept;
	*data = api->ggml_backend_buffer_get_base(w->own_buffer);
	return w->own_buffer;
}

/* Pages that @w shares with what stays plain take memory in the shadow buffer as well, and stay
 * there when the weight goes: each at most once. */
static bool hold_ends(struct buffers *b, struct gg_buffer *buffer, int type, const struct weight *w)
{
	uint64_t kept = w->bytes - whole_pages(b, buffer->base + w->offset, w->bytes);
	uint64_t *held = &buffer->shadow_held[type];

	if (kept > buffer->bytes - *held)
		kept = buffer->bytes - *held;
	if (!account_hold(b->account, kept))
		return false;
	*held += kept;
	return true;
}

/* A buffer of extra type @type in which @w may lie, and where; NULL: no memory. */
static struct ggml_backend_buffer *extra_room(struct buffers *b, struct gg_buffer *buffer, int type,
					      struct weight *w, void **data)
{
	const struct ggml_api *api = &b->device->host->api;
	struct ggml_tensor probe = w->tensor;
	size_t need;

	probe.buffer = b->device->extra_probe[type];
	need = api->ggml_backend_buft_get_alloc_size(b->device->extra[type], &probe);
	if (need > w->bytes)
		return own_room(b, type, w, buffer->base + w->offset, need, data);
	if (!buffer->shadow[type]) {
		buffer->shadow[type] = new_buffer(b, b->device->extra[type], buffer->bytes);
		if (!buffer->shadow[type])
			return NULL;
		api->ggml_backend_buffer_set_usage(buffer->shadow[type], GGML_USAGE_WEIGHTS);
	}
	if (!hold_ends(b, buffer, type, w))
		return NULL;
	*data = (char *)api->ggml_backend_buffer_get_base(buffer->shadow[type]) + w->offset;
	return buffer->shadow[type];
}

/* Converts a complete weight whose data lies at @data, after which it takes no room in the plain
 * buffer; leaves it plain where nothing better is. */
static bool place_weight(struct buffers *b, struct gg_buffer *buffer, struct weight *w,
			 const void *data)
{
	const struct ggml_api *api = &b->device->host->api;

	if (w->uses != WIRE_USE_MUL_MAT && w->uses != WIRE_USE_MUL_MAT_ID)
		return false;
	for (int type = 0; type < b->device->n_extra; type++) {
		struct ggml_tensor tensor = w->tensor;

		if (!w->placed && !extra_supports(b->device, type, w))
			continue;
		if (w->placed) { /* new data for the same weight: same place */
			api->ggml_backend_tensor_set(&w->tensor, data, 0, w->bytes);
			return true;
		}
		tensor.buffer = extra_room(b, buffer, type, w, &tensor.data);
		if (!tensor.buffer || api->ggml_backend_buffer_init_tensor(tensor.buffer, &tensor))
			return false;
		api->ggml_backend_tensor_set(&tensor, data, 0, w->bytes);
		if (!stop_lending(b, buffer, w))
			b->starved = true;
		w->tensor = tensor;
		w->placed = true;
		give_pages_back(b, buffer->base + w->offset, w->bytes);
		b->epoch++;
		return true;
	}
	return false;
}

void *gg_buffer_direct(struct buffers *b, struct gg_buffer *buffer, uint64_t offset, uint64_t bytes)
{
	if (!b->device->host_memory || gg_buffer_touches_placed(buffer, offset, bytes))
		return NULL;
	gg_buffer_own(b, buffer, offset, bytes);
	return buffer->base + offset;
}

void gg_buffer_received(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
			uint64_t bytes)
{
	uint64_t end = offset + bytes;

	if (!buffer->n_weights || !b->device->host_memory)
		return;
	for (uint32_t i = weight_index(buffer, offset);
	     i < buffer->n_weights && buffer->weights[i]->offset < end; i++) {
		struct weight *w = buffer->weights[i];
		uint64_t from = offset > w->offset ? offset : w->offset;
		uint64_t to = end < w->offset + w->bytes ? end : w->offset + w->bytes;

		if (w->received >= w->bytes)
			continue;
		w->received += to - from;
		if (w->received >= w->bytes)
			place_weight(b, buffer, w, buffer->base + w->offset);
	}
}

/* All of a weight in one piece needs no stop in the plain buffer. */
static bool set_whole_weight(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
			     const void *data, uint64_t bytes)
{
	struct weight *w = gg_buffer_weight_at(buffer, offset);

	if (!w || w->bytes != bytes || !b->device->host_memory || !place_weight(b, buffer, w, data))
		return false;
	w->received = w->bytes;
	return true;
}

enum wire_status gg_buffer_set(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
			       const void *data, uint64_t bytes)
{
	if (buffer->n_weights) {
		if (set_whole_weight(b, buffer, offset, data, bytes))
			return WIRE_OK;
		if (gg_buffer_touches_placed(buffer, offset, bytes))
			return WIRE_E_UNSUPPORTED;
	}
	gg_buffer_own(b, buffer, offset, bytes);
	if (b->device->host_memory)
		memcpy(buffer->base + offset, data, bytes);
	else
		b->device->host->api.ggml_backend_tensor_set(&buffer->flat, data, offset, bytes);
	gg_buffer_received(b, buffer, offset, bytes);
	return WIRE_OK;
}

/* Leaves a whole weight where it is, in the file. */
static bool lend_weight(struct buffers *b, struct gg_buffer *buffer, struct weight *w,
			struct file_map *file, const void *data)
{
	if (w->placed || w->own_buffer || (uintptr_t)data % LENT_ALIGNMENT)
		return false;
	file_map_keep(file); /* it may be the one it lies in */
	stop_lending(b, buffer, w);
	w->lent = file;
	w->uncommitted = 0;
	if (give_pages_back(b, buffer->base + w->offset, w->bytes))
		w->uncommitted = whole_pages(b, buffer->base + w->offset, w->bytes);
	account_uncommit(b->account, w->uncommitted);
	buffer->n_lent++;
	b->n_lent++;
	w->tensor.data = (void *)data; /* nobody writes to it: gg_buffer_own() */
	w->received = w->bytes;
	b->epoch++;
	return true;
}

enum wire_status gg_buffer_set_file(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
				    struct file_map *file, uint64_t file_offset, uint64_t bytes)
{
	struct weight *w = gg_buffer_weight_at(buffer, offset);
	const void *data = file_map_at(file, file_offset, bytes);
	enum wire_status status = WIRE_OK;

	if (!set_whole_weight(b, buffer, offset, data, bytes)) {
		if (w && w->bytes == bytes && b->device->reference &&
		    lend_weight(b, buffer, w, file, data))
			return WIRE_OK;
		status = gg_buffer_set(b, buffer, offset, data, bytes);
	}
	return file_map_lost(file) ? WIRE_E_INVALID : status;
}

enum wire_status gg_buffer_get(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
			       void *data, uint64_t bytes)
{
	if (buffer->n_weights && gg_buffer_touches_placed(buffer, offset, bytes))
		return WIRE_E_UNSUPPORTED;
	if (b->device->host_memory)
		memcpy(data, gg_buffer_at(b, buffer, offset, bytes), bytes);
	else
		b->device->host->api.ggml_backend_tensor_get(&buffer->flat, data, offset, bytes);
	return WIRE_OK;
}

const void *gg_buffer_peek(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
			   uint64_t bytes)
{
	return b->device->host_memory ? gg_buffer_at(b, buffer, offset, bytes) : NULL;
}

enum wire_status gg_buffer_fill(struct buffers *b, struct gg_buffer *buffer, uint64_t offset,
				uint8_t value, uint64_t bytes)
{
	if (buffer->n_weights && gg_buffer_touches_placed(buffer, offset, bytes))
		return WIRE_E_UNSUPPORTED;
	if (bytes == 0)
		return WIRE_OK;
	gg_buffer_own(b, buffer, offset, bytes);
	if (b->device->host_memory)
		memset(buffer->base + offset, value, bytes);
	else if (offset == 0 && bytes == buffer->bytes)
		b->device->host->api.ggml_backend_buffer_clear(buffer->plain, value);
	else
		b->device->host->api.ggml_backend_tensor_memset(&buffer->flat, value, offset,
								bytes);
	return WIRE_OK;
}
