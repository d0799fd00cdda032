/* SPDX-License-Identifier: Apache-2.0
 *
 * cgraphs.c -- telling the executor which graph to run, with as few bytes as possible.
 *
 * A program computes the same few graphs over and over.  ggml gives a graph that was not rebuilt
 * the same uid: then nothing is looked at and only its number is sent.  A rebuilt graph is encoded
 * and compared with those the executor has: equal ones are run, similar ones are patched in place
 * (their object, and what the device's back end keeps for it, stays), others are defined anew in
 * the place of the one not used for longest.
 *
 * Prompt and generation have graphs with the same number of tensors but other shapes in nearly all
 * of them; patching one into the other each time would keep neither warm.  So a graph is patched if
 * the shapes are the same, or if fewer than half of its tensors differ (a longer context changes a
 * few per layer).
 *
 * When does a run leave?  The device should start while the program goes on; but a program that
 * reads the result next can have run and read leave in one write.  What it did after this graph
 * last time tells.  A short run leaves with whatever is waited for: by itself it would only take
 * the CPU from the program. */
#include "guest/ggml/cgraphs.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "api/ggml/tensor_ops.h"
#include "base/log.h"
#include "guest/ggml/opmap.h"
#include "link/channel.h"

enum { LONG_RUN_US = 3000 };

/* ---- encoding ---- */

static bool map_prepare(struct cgraphs *g, uint32_t n_tensors)
{
	uint32_t want = 1024;

	while (want < n_tensors * 2)
		want *= 2;
	if (g->map_size < want) {
		free(g->map);
		g->map_size = 0;
		g->map = calloc(want, sizeof(*g->map));
		if (!g->map)
			return false;
		g->map_size = want;
		g->stamp = 0;
	}
	if (++g->stamp == 0) {
		memset(g->map, 0, g->map_size * sizeof(*g->map));
		g->stamp = 1;
	}
	return true;
}

static struct cgraphs_slot *map_find(struct cgraphs *g, const struct ggml_tensor *t)
{
	uint64_t h = (uint64_t)(uintptr_t)t * 0x9e3779b97f4a7c15u;
	uint32_t i = (uint32_t)(h >> 32) & (g->map_size - 1);

	while (g->map[i].stamp == g->stamp && g->map[i].tensor != t)
		i = (i + 1) & (g->map_size - 1);
	return &g->map[i];
}

/* The place of the next tensor; its index plus one goes into the map. */
static struct wire_tensor *append(struct cgraphs *g, const struct ggml_tensor *t)
{
	*map_find(g, t) = (struct cgraphs_slot){t, g->n_next + 1, g->stamp};
	return &g->next[g->n_next++];
}

struct encoder {
	struct cgraphs *g;
	const struct opmap *map;
	cgraphs_locate_fn *locate;
	void *ctx;
};

/* Index plus one of @t, which becomes a leaf if it is not there; 0 if that is impossible. */
static uint32_t index_of(struct encoder *e, const struct ggml_tensor *t)
{
	const struct cgraphs_slot *slot = map_find(e->g, t);
	struct wire_tensor w;

	if (slot->stamp == e->g->stamp)
		return slot->index;
	if (!opmap_encode_leaf(e->map, t, &w) || !e->locate(e->ctx, t, &w.buffer, &w.offset))
		return 0;
	if (t->view_src) { /* back ends treat a tensor that owns its memory differently */
		w.view_src = index_of(e, t->view_src);
		if (!w.view_src)
			return 0;
		w.view_offset = t->view_offs;
	}
	*append(e->g, t) = w;
	return e->g->n_next;
}

/* The sources of node @t, which gets the place after all of them.  ggml_cast() makes a copy whose
 * destination is the copy itself. */
static bool encode_sources(struct encoder *e, const struct ggml_tensor *t, struct wire_tensor *w,
			   const struct ggml_tensor **bad)
{
	for (int i = 0; i < ABI_MAX_SRC; i++) {
		if (!t->src[i] || t->src[i] == t)
			continue;
		*bad = t->src[i];
		w->src[i] = index_of(e, t->src[i]);
		if (!w->src[i])
			return false;
	}
	return true;
}

static bool computes_nothing(const struct wire_tensor *w)
{
	return w->op == WIRE_T_NONE || w->op == WIRE_T_VIEW || w->op == WIRE_T_RESHAPE ||
	       w->op == WIRE_T_PERMUTE || w->op == WIRE_T_TRANSPOSE;
}

static bool encode_node(struct encoder *e, const struct ggml_tensor *t,
			const struct ggml_tensor **bad)
{
	struct wire_tensor w;

	*bad = t;
	if (!opmap_encode(e->map, t, &w))
		return false;
	if (!e->locate(e->ctx, t, &w.buffer, &w.offset))
		return computes_nothing(&w); /* who uses it here has a copy of it as a source */
	if (w.op == WIRE_T_NONE && map_find(e->g, t)->stamp == e->g->stamp)
		return true; /* data that is among the nodes, since it is to be trained */
	w.flags |= WIRE_TENSOR_NODE;
	if (!encode_sources(e, t, &w, bad))
		return false;
	if (t->view_src) {
		*bad = t->view_src;
		w.view_src = index_of(e, t->view_src);
		if (!w.view_src)
			return false;
		w.view_offset = t->view_offs;
	}
	*bad = t;
	if (map_find(e->g, t)->stamp == e->g->stamp)
		return false; /* used before it is computed */
	for (int i = 0; i < ABI_MAX_SRC; i++)
		if (t->src[i] == t)
			w.src[i] = e->g->n_next + 1;
	*append(e->g, t) = w;
	return true;
}

bool cgraphs_encode(struct cgraphs *graphs, const struct ggml_cgraph *cgraph,
		    const struct opmap *map, cgraphs_locate_fn *locate, void *ctx,
		    const struct ggml_tensor **bad)
{
	struct encoder e = {graphs, map, locate, ctx};
	uint32_t most = 0;

	*bad = NULL;
	graphs->n_next = 0;
	if (cgraph->n_nodes < 0 || cgraph->n_nodes > WIRE_MAX_TENSORS)
		return false;
	for (int i = 0; i < cgraph->n_nodes; i++) {
		const struct ggml_tensor *t = cgraph->nodes[i];

		most += 1 + (t->view_src != NULL);
		for (int s = 0; s < ABI_MAX_SRC; s++)
			if (t->src[s])
				most += 1 + (t->src[s]->view_src != NULL);
	}
	if (graphs->max_next < most) {
		free(graphs->next);
		graphs->max_next = 0;
		graphs->next = calloc(most, sizeof(*graphs->next));
		if (!graphs->next)
			return false;
		graphs->max_next = most;
	}
	if (!map_prepare(graphs, most))
		return false;
	for (int i = 0; i < cgraph->n_nodes; i++)
		if (!encode_node(&e, cgraph->nodes[i], bad))
			return false;
	return graphs->n_next <= WIRE_MAX_TENSORS;
}

/* ---- comparing ---- */

static uint64_t shape_of(const struct wire_tensor *t, uint32_t n)
{
	uint64_t h = n;

	for (uint32_t i = 0; i < n; i++) {
		h = (h ^ t[i].type ^ (uint64_t)t[i].op << 32) * 0x9e3779b97f4a7c15u;
		for (int d = 0; d < WIRE_MAX_DIMS; d++)
			h = (h ^ (uint64_t)t[i].ne[d] ^ h >> 31) * 0x9e3779b97f4a7c15u;
	}
	return h;
}

static uint32_t count_different(const struct wire_tensor *a, const struct wire_tensor *b,
				uint32_t n)
{
	uint32_t different = 0;

	for (uint32_t i = 0; i < n; i++)
		different += memcmp(&a[i], &b[i], sizeof(a[i])) != 0;
	return different;
}

static bool patch_room(struct cgraphs *g, uint32_t words)
{
	uint32_t want = g->max_patch ? g->max_patch : 4096;
	uint64_t *bigger;

	if (g->patch_words + words <= g->max_patch)
		return true;
	while (want < g->patch_words + words)
		want *= 2;
	bigger = realloc(g->patch, want * sizeof(*bigger));
	if (!bigger)
		return false;
	g->patch = bigger;
	g->max_patch = want;
	return true;
}

/* Runs of words of tensor @index that are not the same; a gap of one word costs as much as a new
 * run, so it is taken along. */
static uint32_t diff_tensor(struct cgraphs *g, uint32_t index, const uint64_t *was,
			    const uint64_t *is)
{
	uint32_t n_runs = 0;

	for (uint32_t w = 0; w < WIRE_TENSOR_WORDS; w++) {
		struct wire_run run = {.tensor = index, .first = (uint16_t)w};
		uint32_t end = w + 1;

		if (was[w] == is[w])
			continue;
		for (uint32_t at = end; at < WIRE_TENSOR_WORDS && at <= end + 1; at++)
			if (was[at] != is[at])
				end = at + 1;
		run.n_words = (uint16_t)(end - w);
		memcpy(&g->patch[g->patch_words++], &run, sizeof(run));
		memcpy(&g->patch[g->patch_words], &is[w], run.n_words * sizeof(*is));
		g->patch_words += run.n_words;
		n_runs++;
		w = end;
	}
	return n_runs;
}

uint32_t cgraphs_diff(struct cgraphs *graphs, const struct cgraphs_entry *entry)
{
	uint32_t n_runs = 0;

	graphs->patch_words = 0;
	for (uint32_t i = 0; i < entry->n; i++) {
		uint64_t was[WIRE_TENSOR_WORDS], is[WIRE_TENSOR_WORDS];

		if (!memcmp(&entry->tensors[i], &graphs->next[i], sizeof(graphs->next[i])))
			continue;
		if (!patch_room(graphs, 2 * WIRE_TENSOR_WORDS))
			return UINT32_MAX;
		memcpy(was, &entry->tensors[i], sizeof(was));
		memcpy(is, &graphs->next[i], sizeof(is));
		n_runs += diff_tensor(graphs, i, was, is);
	}
	return n_runs;
}

/* The graph the executor has that is closest to graphs->next, or NULL. */
static struct cgraphs_entry *find_similar(struct cgraphs *g, uint64_t shape)
{
	struct cgraphs_entry *best = NULL;
	uint32_t best_different = UINT32_MAX;

	for (int i = 0; i < CGRAPHS_KEPT; i++) {
		struct cgraphs_entry *e = &g->entries[i];
		uint32_t different;

		if (!e->defined || e->n != g->n_next)
			continue;
		different = count_different(e->tensors, g->next, e->n);
		if (e->shape != shape && different >= e->n / 2)
			continue;
		if (different < best_different) {
			best = e;
			best_different = different;
		}
	}
	return best;
}

static struct cgraphs_entry *find_oldest(struct cgraphs *g)
{
	struct cgraphs_entry *oldest = &g->entries[0];

	for (int i = 0; i < CGRAPHS_KEPT; i++)
		if (g->entries[i].used < oldest->used)
			oldest = &g->entries[i];
	return oldest;
}

/* ---- sending ---- */

static uint32_t handle_of(const struct cgraphs *g, const struct cgraphs_entry *e)
{
	return wire_handle((uint32_t)(e - g->entries), 1);
}

static bool entry_store(struct cgraphs_entry *e, const struct cgraphs *g)
{
	if (e->max < g->n_next) {
		free(e->tensors);
		e->max = 0;
		e->tensors = malloc(g->n_next * sizeof(*e->tensors));
		if (!e->tensors)
			return false;
		e->max = g->n_next;
	}
	e->n = g->n_next;
	memcpy(e->tensors, g->next, e->n * sizeof(*e->tensors));
	return true;
}

static struct cgraphs_entry *define(struct cgraphs *g, struct channel *chan, uint64_t shape)
{
	struct cgraphs_entry *e = find_oldest(g);
	struct wire_graph_define def = {.graph = handle_of(g, e), .n_tensors = g->n_next};

	e->defined = false;
	e->device_us = 0;
	e->read_next = false;
	if (!entry_store(e, g))
		return NULL;
	e->shape = shape;
	e->defined = channel_queue(chan, GG_OP_GRAPH_DEFINE, &def, e->tensors,
				   e->n * (uint32_t)sizeof(*e->tensors)) != 0;
	return e;
}

static bool patch(struct cgraphs *g, struct channel *chan, struct cgraphs_entry *e, uint64_t shape)
{
	struct wire_graph_patch head = {.graph = handle_of(g, e), .n_runs = cgraphs_diff(g, e)};

	if (head.n_runs == 0)
		return true;
	if (head.n_runs == UINT32_MAX ||
	    g->patch_words > e->n * (uint64_t)WIRE_TENSOR_WORDS * 2 / 3)
		return false;
	channel_queue(chan, GG_OP_GRAPH_PATCH, &head, g->patch,
		      g->patch_words * (uint32_t)sizeof(*g->patch));
	e->shape = shape;
	return entry_store(e, g);
}

static struct cgraphs_entry *tell(struct cgraphs *g, struct channel *chan)
{
	uint64_t shape = shape_of(g->next, g->n_next);
	struct cgraphs_entry *e = find_similar(g, shape);

	if (e && patch(g, chan, e, shape))
		return e;
	if ((uint64_t)g->n_next * sizeof(*g->next) > WIRE_MAX_GRAPH_TAIL)
		return NULL;
	return define(g, chan, shape);
}

static struct cgraphs_entry *find_uid(struct cgraphs *g, const struct ggml_cgraph *cgraph)
{
	for (int i = 0; cgraph->uid && i < CGRAPHS_KEPT; i++) {
		struct cgraphs_entry *e = &g->entries[i];

		if (e->defined && e->uid == cgraph->uid && e->n_nodes == cgraph->n_nodes &&
		    e->first == cgraph->nodes[0])
			return e;
	}
	return NULL;
}

static void complain(struct cgraphs *g, const struct ggml_tensor *bad)
{
	if (g->complained)
		return;
	g->complained = true;
	if (bad)
		log_err("cannot run a graph: tensor '%.64s' is not in the device's memory or not "
			"of a kind it knows",
			bad->name);
	else
		log_err("cannot run a graph: it is too large, or there is no memory to tell it");
}

int cgraphs_run(struct cgraphs *graphs, struct channel *chan, const struct ggml_cgraph *cgraph,
		const struct opmap *map, cgraphs_locate_fn *locate, void *ctx)
{
	const struct ggml_tensor *bad;
	struct wire_graph_run run = {.cpu = sched_getcpu()};
	struct cgraphs_entry *e;

	if (cgraph->n_nodes == 0)
		return ABI_STATUS_SUCCESS;
	e = find_uid(graphs, cgraph);
	if (!e) {
		if (!cgraphs_encode(graphs, cgraph, map, locate, ctx, &bad)) {
			complain(graphs, bad);
			return ABI_STATUS_FAILED;
		}
		if (graphs->n_next == 0) /* views of what lies elsewhere */
			return ABI_STATUS_SUCCESS;
		e = tell(graphs, chan);
		if (!e)
			return ABI_STATUS_ALLOC_FAILED;
		e->uid = cgraph->uid;
		e->first = cgraph->nodes[0];
		e->n_nodes = cgraph->n_nodes;
	}
	e->used = ++graphs->clock;
	run.graph = handle_of(graphs, e);
	chan->need = chan->run_seq = channel_queue(chan, GG_OP_GRAPH_RUN, &run, NULL, 0);
	chan->run_us = &e->device_us;
	chan->n_runs++;
	graphs->just_run = e;
	if (e->device_us > LONG_RUN_US && !e->read_next)
		channel_flush(chan);
	return chan->dead ? ABI_STATUS_FAILED : ABI_STATUS_SUCCESS;
}

void cgraphs_next(struct cgraphs *graphs, struct channel *chan, bool read)
{
	struct cgraphs_entry *e = graphs->just_run;

	if (!e)
		return;
	graphs->just_run = NULL;
	e->read_next = read;
	if (e->device_us > LONG_RUN_US)
		channel_flush(chan);
}

void cgraphs_forget(struct cgraphs *graphs)
{
	for (int i = 0; i < CGRAPHS_KEPT; i++)
		graphs->entries[i].defined = false;
}

void cgraphs_finish(struct cgraphs *graphs)
{
	for (int i = 0; i < CGRAPHS_KEPT; i++)
		free(graphs->entries[i].tensors);
	free(graphs->next);
	free(graphs->map);
	free(graphs->patch);
	memset(graphs, 0, sizeof(*graphs));
}
