/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a definition is kept in wire form, checked as a whole (graph_check.h), and
 * built once into tensors and a graph of the host's ggml.  A patch changes words of the wire form.
 * If it touched only values (offsets, shapes, parameters), the tensors are filled in again in
 * place and the graph object stays the same, so that what a back end keeps per graph stays warm; if
 * it touched the structure (operation, flags, sources), the graph is rebuilt.
 *
 * The addresses in the tensors come from the session's buffers.  A freed buffer may not be computed
 * with: every run compares the epoch of the buffers and resolves again when it moved. */
#include "exec/ggml/graphs.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "exec/ggml/op_rules.h"

static atomic_uint_fast64_t next_uid = 1;

void graphs_init(struct graphs *g, struct gg_device *device, struct buffers *buffers)
{
	memset(g, 0, sizeof(*g));
	g->device = device;
	g->buffers = buffers;
}

static void unbuild(struct graphs *g, struct gg_graph *graph)
{
	if (graph->context)
		g->device->host->api.ggml_free(graph->context);
	graph->context = NULL;
	graph->cgraph = NULL;
}

static void free_storage(struct graphs *g, struct gg_graph *graph)
{
	free(graph->wire);
	free(graph->tensors);
	free(graph->index);
	free(graph->cost_ns);
	graph->cost_ns = NULL;
	graph->wire = NULL;
	graph->tensors = NULL;
	graph->index = NULL;
	account_unhold(g->buffers->account, graph->held_bytes);
	graph->held_bytes = 0;
	g->cap_tensors -= graph->cap_tensors;
	atomic_fetch_sub(&g->buffers->account->n_tensors, graph->cap_tensors);
	graph->cap_tensors = 0;
}

static void clear(struct graphs *g, struct gg_graph *graph)
{
	unbuild(g, graph);
	free_storage(g, graph);
	*graph = (struct gg_graph){0};
}

void graphs_finish(struct graphs *g)
{
	for (int i = 0; i < WIRE_MAX_GRAPHS; i++)
		clear(g, &g->slots[i]);
	account_refund(g->buffers->account, g->scratch_bytes);
	g->scratch_bytes = 0;
}

static struct gg_graph *find(struct graphs *g, uint32_t handle)
{
	uint32_t slot = wire_slot(handle);

	if (handle == 0 || slot >= WIRE_MAX_GRAPHS || g->slots[slot].handle != handle)
		return NULL;
	return &g->slots[slot];
}

static bool buffer_size(void *ctx, uint32_t handle, uint64_t *bytes)
{
	struct graphs *g = ctx;
	struct gg_buffer *buffer = buffers_find(g->buffers, handle);

	if (!buffer)
		return false;
	*bytes = buffer->bytes;
	return true;
}

void graphs_known_ops(const struct ggml_host *host, struct gg_welcome *welcome)
{
	for (uint32_t i = 0; i < WIRE_NUM_TENSOR_OPS; i++)
		if (host->op_to_host[i] >= 0 && graph_check_knows(i))
			welcome->ops[i / 8] |= (uint8_t)(1u << (i % 8));
	for (uint32_t i = 0; i < WIRE_NUM_UNARY_OPS; i++)
		if (host->unary_to_host[i] >= 0)
			welcome->unary[i / 8] |= (uint8_t)(1u << (i % 8));
	for (uint32_t i = 0; i < WIRE_NUM_GLU_OPS; i++)
		if (host->glu_to_host[i] >= 0)
			welcome->glu[i / 8] |= (uint8_t)(1u << (i % 8));
}

static struct graph_env make_env(struct graphs *g, struct gg_welcome *bits)
{
	graphs_known_ops(g->device->host, bits);
	return (struct graph_env){
		.types = &g->device->host->types,
		.ops = bits->ops,
		.unary = bits->unary,
		.glu = bits->glu,
		.buffer_size = buffer_size,
		.ctx = g,
		.accelerator = !g->device->reference,
	};
}

/* ---- from wire form to the host's tensors ---- */

static int host_flags(uint32_t wire_flags)
{
	static const struct {
		uint32_t wire;
		int host;
	} map[] = {
		{WIRE_TENSOR_INPUT, GGML_FLAG_INPUT},     {WIRE_TENSOR_OUTPUT, GGML_FLAG_OUTPUT},
		{WIRE_TENSOR_PARAM, GGML_FLAG_PARAM},     {WIRE_TENSOR_LOSS, GGML_FLAG_LOSS},
		{WIRE_TENSOR_COMPUTE, GGML_FLAG_COMPUTE},
	};
	int flags = 0;

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (wire_flags & map[i].wire)
			flags |= map[i].host;
	return flags;
}

/* Libraries print it, to our log or worse: no control characters, nor what only some terminals take
 * for text. */
static void fill_name(const struct wire_tensor *w, struct ggml_tensor *t)
{
	size_t i = 0;

	for (; i < sizeof(t->name) - 1 && w->name[i]; i++)
		t->name[i] = (char)(w->name[i] >= ' ' && w->name[i] <= '~' ? w->name[i] : '?');
	memset(t->name + i, 0, sizeof(t->name) - i);
}

/* Everything but data, buffer and extra. */
static void fill_shape(const struct ggml_host *host, const struct wire_tensor *w,
		       struct ggml_tensor *t, struct ggml_tensor *const *tensors)
{
	t->type = (int)w->type;
	t->op = host->op_to_host[w->op];
	t->flags = host_flags(w->flags);
	for (int i = 0; i < WIRE_MAX_DIMS; i++) {
		t->ne[i] = w->ne[i];
		t->nb[i] = w->nb[i];
	}
	memcpy(t->op_params, w->params, sizeof(t->op_params));
	if (w->op == WIRE_T_UNARY)
		t->op_params[0] = host->unary_to_host[w->params[0]];
	if (w->op == WIRE_T_GLU)
		t->op_params[0] = host->glu_to_host[w->params[0]];
	for (int i = 0; i < WIRE_MAX_SRC; i++)
		t->src[i] = w->src[i] ? tensors[w->src[i] - 1] : NULL;
	t->view_src = w->view_src ? tensors[w->view_src - 1] : NULL;
	t->view_offs = w->view_offset;
	fill_name(w, t);
}

/* What is not to be computed is data for all that the back end can see. */
static void make_leaf(const struct ggml_host *host, struct ggml_tensor *t)
{
	t->op = host->op_to_host[WIRE_T_NONE];
	memset(t->src, 0, sizeof(t->src));
}

static bool same_shape(const struct wire_tensor *w, const struct ggml_tensor *t)
{
	if ((int)w->type != t->type)
		return false;
	for (int i = 0; i < WIRE_MAX_DIMS; i++)
		if (w->ne[i] != t->ne[i] || w->nb[i] != t->nb[i])
			return false;
	return true;
}

/* Points @t at its data.  A leaf that is a placed weight takes the weight's place and layout. */
static bool resolve_data(struct graphs *g, const struct wire_tensor *w, struct ggml_tensor *t,
			 bool *placed)
{
	struct gg_buffer *buffer = buffers_find(g->buffers, w->buffer);
	struct weight *weight;
	uint64_t bytes;

	*placed = false;
	if (!buffer)
		return false;
	t->buffer = buffer->plain;
	bytes = g->device->host->api.ggml_nbytes(t);
	t->data = gg_buffer_at(g->buffers, buffer, w->offset, bytes);
	t->extra = NULL;
	/* Any byte of it: what writes across a placed weight has its plain pages back. */
	if (!buffer->n_weights || !gg_buffer_touches_placed(buffer, w->offset, bytes))
		return true;
	weight = gg_buffer_weight_at(buffer, w->offset);
	if (!weight || (w->flags & WIRE_TENSOR_NODE) || !same_shape(w, &weight->tensor))
		return false;
	t->buffer = weight->tensor.buffer;
	t->data = weight->tensor.data;
	t->extra = weight->tensor.extra;
	*placed = true;
	return true;
}

/* A weight in a layout of the device's own may only be the left side of a matrix product. */
static bool uses_allowed(const struct gg_graph *graph, const uint8_t *placed)
{
	for (uint32_t i = 0; i < graph->n_tensors; i++) {
		const struct wire_tensor *w = &graph->wire[i];
		bool product = w->op == WIRE_T_MUL_MAT || w->op == WIRE_T_MUL_MAT_ID;

		if (w->view_src && placed[w->view_src - 1])
			return false;
		if (graph_idle(w))
			continue;
		for (int s = 0; s < WIRE_MAX_SRC; s++)
			if (w->src[s] && placed[w->src[s] - 1] && !(product && s == 0))
				return false;
	}
	return true;
}

/* Some back ends clear what they pad a tensor with: the padding must be there. */
static bool init_tensor(struct graphs *g, const struct wire_tensor *w, struct ggml_tensor *t)
{
	const struct ggml_api *api = &g->device->host->api;
	struct gg_buffer *buffer = buffers_find(g->buffers, w->buffer);

	if (g->device->host_memory)
		return true;
	if (!t->view_src && g->device->host->types.block[w->type] > 1 &&
	    api->ggml_backend_buft_get_alloc_size(g->device->buft, t) > buffer->bytes - w->offset)
		return false;
	return api->ggml_backend_buffer_init_tensor(t->buffer, t) == 0;
}

/* A back end aborts on what it said it cannot do; what it can may depend on where the operands are.
 */
static bool device_can(struct graphs *g, const struct gg_graph *graph)
{
	for (uint32_t i = 0; i < graph->n_tensors; i++)
		if (graph_computes(&graph->wire[i]) &&
		    !g->device->host->api.ggml_backend_dev_supports_op(g->device->dev,
								       graph->tensors[i])) {
			log_dbg("the device cannot do tensor %u (op %u)", i, graph->wire[i].op);
			return false;
		}
	return true;
}

static bool resolve_once(struct graphs *g, struct gg_graph *graph)
{
	uint8_t *placed = calloc(graph->n_tensors, 1);
	bool ok = placed != NULL;

	for (uint32_t i = 0; ok && i < graph->n_tensors; i++) {
		struct ggml_tensor *t = graph->tensors[i];
		bool is_placed;

		fill_shape(g->device->host, &graph->wire[i], t, graph->tensors);
		if (graph_idle(&graph->wire[i]))
			make_leaf(g->device->host, t);
		ok = resolve_data(g, &graph->wire[i], t, &is_placed);
		placed[i] = is_placed;
		if (ok && !is_placed)
			ok = init_tensor(g, &graph->wire[i], t);
	}
	ok = ok && uses_allowed(graph, placed) && device_can(g, graph);
	free(placed);
	return ok;
}

static void own(struct graphs *g, const struct wire_tensor *w)
{
	struct gg_buffer *buffer = buffers_find(g->buffers, w->buffer);
	uint64_t bytes;

	if (buffer && tensor_extent(&g->device->host->types, w, &bytes))
		gg_buffer_own(g->buffers, buffer, w->offset, bytes);
}

/* Which source of an operation may not lie in a file; -1: none.  What is sorted, since a sort runs
 * off its end when its data changes under it; and the factors of a rotation, which are read beyond
 * their own end: in a buffer something follows, in a file that may be nothing. */
static int owned_source(uint32_t op)
{
	switch (op) {
	case WIRE_T_ARGSORT:
	case WIRE_T_TOP_K:
		return 0;
	case WIRE_T_ROPE:
	case WIRE_T_ROPE_BACK:
		return 2;
	default:
		return -1;
	}
}

/* Takes out of files what cannot stay there: also indices, which are checked before each run and
 * must not change afterwards, and results. */
static void own_what_must(struct graphs *g, const struct gg_graph *graph)
{
	if (!buffers_lend(g->buffers))
		return;
	for (uint32_t i = 0; i < graph->n_index; i++)
		own(g, &graph->wire[graph->index[i].tensor]);
	for (uint32_t i = 0; i < graph->n_tensors; i++) {
		const struct wire_tensor *w = &graph->wire[i];
		int src = owned_source(w->op);

		if (src >= 0 && w->src[src])
			own(g, &graph->wire[w->src[src] - 1]);
		for (int s = 0; s < WIRE_MAX_SRC; s++)
			if (op_written_sources(w->op) >> s & 1)
				own(g, &graph->wire[w->src[s] - 1]);
		if (graph_computes(w))
			own(g, w);
	}
}

static bool resolve_all(struct graphs *g, struct gg_graph *graph)
{
	bool ok;

	own_what_must(g, graph);
	do { /* a tensor may take lent weights back: each time there is one less */
		graph->buffers_epoch = g->buffers->epoch;
		ok = resolve_once(g, graph);
	} while (graph->buffers_epoch != g->buffers->epoch);
	return ok;
}

/* What ggml takes for a graph of @n tensors. */
static uint64_t context_bytes(const struct ggml_api *api, uint32_t n)
{
	return (n + 1) * (api->ggml_tensor_overhead() + 64) +
	       api->ggml_graph_overhead_custom(n + 1, false);
}

/* One for each part of a run. */
static void new_uid(struct gg_graph *graph)
{
	graph->cgraph->uid = atomic_fetch_add(&next_uid, graph->n_stops + 1);
}

/* Makes context, tensors and graph anew from the wire form. */
static bool build(struct graphs *g, struct gg_graph *graph)
{
	const struct ggml_api *api = &g->device->host->api;
	static const int64_t one = 1;
	uint32_t n = graph->n_tensors;
	struct ggml_init_params params = {
		.mem_size = context_bytes(api, n),
		.no_alloc = true,
	};

	unbuild(g, graph);
	graph->context = api->ggml_init(params);
	if (!graph->context)
		return false;
	for (uint32_t i = 0; i < n; i++)
		graph->tensors[i] = api->ggml_new_tensor(graph->context, GGML_T_F32, 1, &one);
	if (!resolve_all(g, graph))
		return false;
	graph->cgraph = api->ggml_new_graph_custom(graph->context, n + 1, false);
	for (uint32_t i = 0; i < n; i++)
		if ((graph->wire[i].flags & WIRE_TENSOR_NODE) && !graph_idle(&graph->wire[i]))
			api->ggml_build_forward_expand(graph->cgraph, graph->tensors[i]);
	/* That flags every node for computing; which are is the program's say. */
	for (uint32_t i = 0; i < n; i++)
		graph->tensors[i]->flags = host_flags(graph->wire[i].flags);
	new_uid(graph);
	return true;
}

/* A back end keeps scratch memory for the neediest graph it has met. */
static bool charge_scratch(struct graphs *g, const struct graph_needs *needs)
{
	uint64_t threads = g->device->reference ? (uint64_t)g->device->n_threads : 1;
	uint64_t bytes = needs->scratch + needs->thread_scratch * threads;

	if (bytes <= g->scratch_bytes)
		return true;
	if (!account_charge(g->buffers->account, bytes - g->scratch_bytes))
		return false;
	g->scratch_bytes = bytes;
	return true;
}

static enum wire_status check(struct graphs *g, struct gg_graph *graph, const char **why)
{
	struct gg_welcome bits = {0};
	struct graph_env env = make_env(g, &bits);
	struct graph_needs needs = {.index = graph->index,
				    .max_index = graph->n_tensors,
				    .cost_ns = graph->cost_ns};
	struct graph_fault fault = {0};

	if (graph_check(&env, graph->wire, graph->n_tensors, &needs, &fault)) {
		graph->n_index = needs.n_index;
		graph->n_stops = needs.n_stops;
		graph->total_ns = needs.time_ns;
		graph->last_us = 0;
		return charge_scratch(g, &needs) ? WIRE_OK : WIRE_E_NO_MEMORY;
	}
	*why = fault.why;
	log_dbg("graph refused: tensor %u (op %u): %s", fault.tensor, graph->wire[fault.tensor].op,
		fault.why);
	return WIRE_E_INVALID;
}

static bool reserve(struct graphs *g, struct gg_graph *graph, uint32_t n)
{
	_Atomic(uint32_t) *n_of_machine = &g->buffers->account->n_tensors;
	uint64_t bytes =
		context_bytes(&g->device->host->api, n) +
		n * (sizeof(*graph->wire) + sizeof(*graph->tensors) + sizeof(*graph->index));

	if (n <= graph->cap_tensors)
		return true;
	if (n > GRAPHS_MAX_TENSORS - (g->cap_tensors - graph->cap_tensors))
		return false;
	free_storage(g, graph);
	if (!account_hold(g->buffers->account, bytes))
		return false;
	if (atomic_fetch_add(n_of_machine, n) > GRAPHS_MAX_OF_MACHINE - n) {
		atomic_fetch_sub(n_of_machine, n);
		account_unhold(g->buffers->account, bytes);
		return false;
	}
	graph->held_bytes = bytes;
	graph->wire = calloc(n, sizeof(*graph->wire));
	graph->tensors = calloc(n, sizeof(*graph->tensors));
	graph->index = calloc(n, sizeof(*graph->index));
	graph->cost_ns = calloc(n, sizeof(*graph->cost_ns));
	graph->cap_tensors = n;
	g->cap_tensors += n;
	if (graph->wire && graph->tensors && graph->index && graph->cost_ns)
		return true;
	free_storage(g, graph);
	return false;
}

bool graphs_define(struct graphs *g, uint32_t handle, uint32_t n, struct wire_tensor **into)
{
	uint32_t slot = wire_slot(handle);
	struct gg_graph *graph;

	if (handle == 0 || slot >= WIRE_MAX_GRAPHS || n == 0 || n > WIRE_MAX_TENSORS)
		return false;
	graph = &g->slots[slot];
	if (graph->handle && graph->handle != handle)
		return false;
	unbuild(g, graph);
	graph->handle = handle;
	graph->n_tensors = 0;
	*into = reserve(g, graph, n) ? graph->wire : NULL;
	return true;
}

enum wire_status graphs_defined(struct graphs *g, uint32_t handle, uint32_t n, const char **why)
{
	struct gg_graph *graph = find(g, handle);
	enum wire_status status;

	*why = NULL;
	graph->n_tensors = n;
	status = check(g, graph, why);
	if (status == WIRE_OK && !build(g, graph)) {
		status = WIRE_E_UNSUPPORTED;
		*why = "a tensor's data is not where the graph needs it";
		unbuild(g, graph);
	}
	return status;
}

/* Words of struct wire_tensor that decide the structure of the host's graph. */
static bool is_structure(uint32_t word)
{
	uint32_t at = word * 8;

	return (at < offsetof(struct wire_tensor, offset)) ||
	       (at >= offsetof(struct wire_tensor, src) &&
		at < offsetof(struct wire_tensor, view_offset));
}

/* Each word of each tensor once, and a run for every second one. */
#define MAX_PATCH_BYTES                                                                            \
	(sizeof(struct wire_tensor) + WIRE_TENSOR_WORDS / 2 * sizeof(struct wire_run))

bool graphs_patch(struct graphs *g, uint32_t handle, uint32_t tail_bytes, struct graph_patch *patch)
{
	struct gg_graph *graph = find(g, handle);

	if (!graph || !graph->n_tensors || tail_bytes > graph->n_tensors * MAX_PATCH_BYTES)
		return false;
	*patch = (struct graph_patch){.graph = graph, .structure = !graph->cgraph};
	return true;
}

bool graphs_patch_run(struct graph_patch *patch, const struct wire_run *run, const uint8_t *words)
{
	if (run->tensor >= patch->graph->n_tensors || run->n_words == 0 ||
	    run->first >= WIRE_TENSOR_WORDS || run->n_words > WIRE_TENSOR_WORDS - run->first)
		return false;
	memcpy((uint8_t *)&patch->graph->wire[run->tensor] + run->first * 8u, words,
	       run->n_words * 8u);
	for (uint32_t w = run->first; w < (uint32_t)run->first + run->n_words; w++)
		patch->structure = patch->structure || is_structure(w);
	return true;
}

enum wire_status graphs_patched(struct graphs *g, struct graph_patch *patch, const char **why)
{
	struct gg_graph *graph = patch->graph;
	enum wire_status status;

	*why = NULL;
	status = check(g, graph, why);
	if (status == WIRE_OK) {
		bool ok = patch->structure ? build(g, graph) : resolve_all(g, graph);

		if (ok && !patch->structure)
			new_uid(graph);
		if (!ok)
			status = WIRE_E_UNSUPPORTED;
	}
	if (status != WIRE_OK)
		unbuild(g, graph);
	return status;
}

bool graphs_free(struct graphs *g, uint32_t handle)
{
	struct gg_graph *graph = find(g, handle);

	if (!graph)
		return false;
	clear(g, graph);
	return true;
}

/* ---- running ---- */

/* @n elements, each @step bytes behind the last. */
static bool index_in_range(const char *data, int type, uint64_t step, int64_t n, int64_t limit)
{
	for (int64_t i = 0; i < n; i++, data += step) {
		int64_t v = type == GGML_T_I64 ? *(const int64_t *)data : *(const int32_t *)data;

		if (v < 0 || v >= limit)
			return false;
	}
	return true;
}

/* A row of an index, from @at in the buffer. */
static bool row_in_range(struct graphs *g, const struct wire_tensor *w, uint64_t at, int64_t limit)
{
	uint64_t element = w->type == GGML_T_I64 ? 8 : 4, step = w->nb[0];
	struct gg_buffer *buffer = buffers_find(g->buffers, w->buffer);
	const char *p =
		gg_buffer_peek(g->buffers, buffer, at, (uint64_t)(w->ne[0] - 1) * step + element);
	_Alignas(8) char some[4096];
	int64_t most = step < sizeof(some) ? (int64_t)(sizeof(some) / step) : 1;

	if (p)
		return index_in_range(p, (int)w->type, step, w->ne[0], limit);
	for (int64_t i = 0, n; i < w->ne[0]; i += n) {
		n = w->ne[0] - i < most ? w->ne[0] - i : most;
		if (gg_buffer_get(g->buffers, buffer, at + (uint64_t)i * step, some,
				  (uint64_t)(n - 1) * step + element) ||
		    !index_in_range(some, (int)w->type, step, n, limit))
			return false;
	}
	return true;
}

/* What is in an index tensor decides which memory an operation touches. */
static bool index_ok(struct graphs *g, struct gg_graph *graph, const struct graph_index *rule)
{
	const struct wire_tensor *w = &graph->wire[rule->tensor];

	for (int64_t i3 = 0; i3 < w->ne[3]; i3++)
		for (int64_t i2 = 0; i2 < w->ne[2]; i2++)
			for (int64_t i1 = 0; i1 < w->ne[1]; i1++)
				if (!row_in_range(g, w,
						  w->offset + (uint64_t)i1 * w->nb[1] +
							  (uint64_t)i2 * w->nb[2] +
							  (uint64_t)i3 * w->nb[3],
						  rule->limit))
					return false;
	return true;
}

/* The nodes from where the last part ended to the next stop. */
static struct ggml_cgraph *next_part(struct graphs_run *run)
{
	struct gg_graph *graph = run->graph;
	struct ggml_cgraph *all = graph->cgraph;
	const struct ggml_tensor *stop = run->index < graph->n_index
						 ? graph->tensors[graph->index[run->index].before]
						 : NULL;
	int end = run->n_done;

	if (!stop && run->n_parts == 0) {
		run->n_done = all->n_nodes;
		run->n_parts = 1;
		return all;
	}
	while (end < all->n_nodes && all->nodes[end] != stop)
		end++;
	if (stop && end == all->n_nodes)
		return NULL;
	run->part = (struct ggml_cgraph){
		.n_nodes = end - run->n_done,
		.nodes = all->nodes + run->n_done,
		.use_counts = all->use_counts,
		.visited_hash_set = all->visited_hash_set,
		.order = all->order,
		.uid = all->uid + (uint64_t)run->n_parts,
	};
	run->n_done = end;
	run->n_parts++;
	return &run->part;
}

struct ggml_cgraph *graphs_run_next(struct graphs *g, struct graphs_run *run,
				    enum wire_status *status, const char **why)
{
	struct gg_graph *graph = run->graph;
	uint32_t before = run->index < graph->n_index ? graph->index[run->index].before : 0;

	struct ggml_cgraph *part;

	*status = WIRE_OK;
	if (run->n_done == graph->cgraph->n_nodes)
		return NULL;
	if (!run->n_parts)
		before = 0;
	for (; run->index < graph->n_index && graph->index[run->index].before == before;
	     run->index++) {
		if (index_ok(g, graph, &graph->index[run->index]))
			continue;
		*status = WIRE_E_INVALID;
		*why = "an index is out of range";
		return NULL;
	}
	part = next_part(run);
	if (!part) {
		*status = WIRE_E_INVALID;
		*why = "an index that no node uses";
	}
	return part;
}

struct ggml_cgraph *graphs_run_begin(struct graphs *g, struct graphs_run *run, uint32_t handle,
				     enum wire_status *status, const char **why)
{
	struct gg_graph *graph = find(g, handle);

	*status = WIRE_E_INVALID;
	*why = "no such graph";
	if (!graph || !graph->cgraph)
		return NULL;
	if (graph->buffers_epoch != g->buffers->epoch) {
		*status = check(g, graph, why);
		if (*status == WIRE_OK && !resolve_all(g, graph)) {
			*status = WIRE_E_INVALID;
			*why = "a buffer of the graph is gone";
		}
		if (*status != WIRE_OK) {
			unbuild(g, graph);
			return NULL;
		}
	}
	*run = (struct graphs_run){.graph = graph};
	return graphs_run_next(g, run, status, why);
}

/* ---- questions ---- */

/* Turns @n query tensors into host tensors without data; NULL: refused. */
static struct ggml_tensor *make_query(struct graphs *g, const struct wire_tensor *tensors,
				      uint32_t n, struct ggml_tensor *storage)
{
	struct gg_welcome bits = {0};
	struct graph_env env = make_env(g, &bits);
	struct ggml_tensor *pointers[WIRE_MAX_QUERY_TENSORS];
	struct graph_fault fault;

	if (!graph_check_query(&env, tensors, n, &fault)) {
		log_dbg("query refused: op %u: %s", tensors[n - 1].op, fault.why);
		return NULL;
	}
	memset(storage, 0, n * sizeof(*storage));
	for (uint32_t i = 0; i < n; i++) {
		pointers[i] = &storage[i];
		fill_shape(g->device->host, &tensors[i], &storage[i], pointers);
	}
	return &storage[n - 1];
}

bool graphs_supports(struct graphs *g, const struct wire_tensor *tensors, uint32_t n, bool *offload)
{
	const struct ggml_api *api = &g->device->host->api;
	struct ggml_tensor storage[WIRE_MAX_QUERY_TENSORS];
	struct ggml_tensor *op = make_query(g, tensors, n, storage);

	*offload = false;
	if (!op || !api->ggml_backend_dev_supports_op(g->device->dev, op))
		return false;
	*offload = api->ggml_backend_dev_offload_op(g->device->dev, op);
	return true;
}

uint64_t graphs_alloc_size(struct graphs *g, const struct wire_tensor *tensors, uint32_t n)
{
	struct ggml_tensor storage[WIRE_MAX_QUERY_TENSORS];
	struct ggml_tensor *t = make_query(g, tensors, n, storage);

	return t ? g->device->host->api.ggml_backend_buft_get_alloc_size(g->device->buft, t) : 0;
}
