/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a back end computes a graph from its first node to its last, and while it
 * does nobody else can use the device.  A graph that is going to take long is therefore given to it
 * in slices, views of its list of nodes, as ggml's own scheduler does between devices; after each
 * slice somebody else may have a turn.  On a reference device a node that would take more than a
 * slice is cut into pieces itself (op_cut.h).
 *
 * How long it is going to take is what the check of the graph said of each node (op_cost.h), of one
 * core of a slow CPU, divided by how much faster than that this session's slices were lately.  The
 * one who wrote the graph may have wanted to mislead us with an earlier one, so this is believed
 * only within MAX_SPEED on a reference device.
 *
 * A graph that is short, by that or by its last run, is computed as the one object it is: nothing
 * is different from a back end's point of view, and what it keeps per graph stays warm.
 *
 * A graph whose indices are computed by itself comes in parts (graphs.h); a slice never reaches
 * beyond its part.
 *
 * A slice ends where a node does not use the one before it, if it can: a back end computes some
 * chains of nodes in one step, with a result that is rounded differently. */
#include "exec/ggml/run.h"

#include <string.h>
#include <time.h>

#include "exec/ggml/op_cut.h"

#define MIN_SPEED       (1.0 / 16)
#define MAX_SPEED       16.0 /* of a reference device */
#define MAX_SPEED_OTHER 1e6

enum {
	TOLD_US = 5000,  /* a run that is as long tells of the speed */
	MAX_STRETCH = 2, /* of a slice, for the sake of a chain of nodes */
};

/* Where a run is: node @node of the graph, which is tensor @tensor of the wire form. */
struct cursor {
	struct gg_graph *graph;
	int node;
	uint32_t tensor, first_tensor; /* and where the slice began */
	uint64_t slice_ns;             /* of the slow core */
};

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

void runner_init(struct runner *r, struct gg_device *device, struct turn *turn)
{
	*r = (struct runner){.device = device, .turn = turn, .speed = 1, .slice_us = RUN_SLICE_US};
}

/* ---- how fast ---- */

static void learn(struct runner *r, uint64_t said_ns, int64_t took_us)
{
	double max = r->device->reference ? MAX_SPEED : MAX_SPEED_OTHER, speed;

	if (said_ns < TOLD_US * UINT64_C(1000) && took_us < TOLD_US)
		return;
	speed = (double)said_ns / 1000 / (double)(took_us + 1);
	if (speed > r->speed) /* not at once: a slower kind of node may follow */
		speed = r->speed * 2 < speed ? r->speed * 2 : speed;
	r->speed = speed < MIN_SPEED ? MIN_SPEED : speed > max ? max : speed;
}

static uint64_t slice_ns(const struct runner *r)
{
	return (uint64_t)((double)r->slice_us * 1000 * r->speed);
}

/* ---- slices ---- */

static uint64_t cost_at(struct cursor *c)
{
	const struct gg_graph *g = c->graph;

	while (c->tensor < g->n_tensors && g->tensors[c->tensor] != g->cgraph->nodes[c->node])
		c->tensor++;
	return c->tensor < g->n_tensors ? g->cost_ns[c->tensor] : 0;
}

/* Does node @at use the one before it? */
static bool is_chained(const struct ggml_cgraph *g, int at)
{
	const struct ggml_tensor *before = g->nodes[at - 1], *t = g->nodes[at];

	for (int i = 0; i < WIRE_MAX_SRC; i++)
		if (t->src[i] && (t->src[i] == before || t->src[i]->view_src == before))
			return true;
	return false;
}

/* Moves to the end of the next slice, at most to node @end.  Returns what it takes. */
static uint64_t next_slice(struct cursor *c, int end)
{
	const struct ggml_cgraph *g = c->graph->cgraph;
	uint64_t sum = 0;
	int first = c->node;

	for (; c->node < end; c->node++) {
		uint64_t cost = cost_at(c);

		if (c->node > first && sum + cost > c->slice_ns &&
		    (!is_chained(g, c->node) || sum + cost > c->slice_ns * MAX_STRETCH))
			break;
		if (c->node == first)
			c->first_tensor = c->tensor;
		sum += cost;
	}
	return sum;
}

static bool compute(struct runner *r, struct ggml_cgraph *graph)
{
	return r->device->host->api.ggml_backend_graph_compute(r->backend, graph) == 0;
}

static bool compute_nodes(struct runner *r, const struct ggml_cgraph *graph, int first, int end)
{
	struct ggml_cgraph view = *graph;

	view.size = 0;
	view.nodes = graph->nodes + first;
	view.n_nodes = end - first;
	view.n_leafs = 0;
	view.leafs = NULL;
	view.uid = 0;
	return compute(r, &view);
}

/* ---- pieces of a node ---- */

static bool compute_piece(struct runner *r, const struct ggml_cgraph *graph,
			  const struct ggml_tensor *whole, const struct op_cut *cut, int64_t first,
			  int64_t n)
{
	struct ggml_tensor piece, src[WIRE_MAX_SRC], *node = &piece;
	struct ggml_cgraph view = *graph;

	op_cut_piece(cut, whole, first, n, &piece, src);
	view.size = 0;
	view.nodes = &node;
	view.n_nodes = 1;
	view.n_leafs = 0;
	view.leafs = NULL;
	view.uid = 0;
	return compute(r, &view);
}

static struct op_cut cut_of(struct runner *r, const struct gg_graph *graph, uint32_t tensor)
{
	const struct wire_tensor *t = &graph->wire[tensor];
	struct graph_env env = {.types = &r->device->host->types};
	struct op_args a = {.env = &env, .dst = t};

	for (int i = 0; i < WIRE_MAX_SRC; i++)
		a.src[i] = t->src[i] ? &graph->wire[t->src[i] - 1] : NULL;
	return op_cut_of(&a);
}

static void rest(struct runner *r, int64_t *used_us)
{
	*used_us += turn_yield(r->turn);
}

/* A node that takes more than a slice. */
static bool compute_cut(struct runner *r, struct gg_graph *graph, int node, uint32_t tensor,
			int64_t *used_us)
{
	struct op_cut cut = cut_of(r, graph, tensor);
	uint64_t each_ns = graph->cost_ns[tensor] / (uint64_t)cut.n + 1;

	if (cut.n == 1 || !r->device->reference || !r->device->host_memory)
		return compute_nodes(r, graph->cgraph, node, node + 1);
	for (int64_t first = 0, n; first < cut.n; first += n) {
		int64_t started = now_us();

		if (first) {
			rest(r, used_us);
			if (r->must_stop(r->ctx))
				return false;
		}
		n = op_cut_round(&cut, (int64_t)(slice_ns(r) / each_ns), cut.n - first);
		if (!compute_piece(r, graph->cgraph, graph->tensors[tensor], &cut, first, n))
			return false;
		learn(r, each_ns * (uint64_t)n, now_us() - started);
	}
	return true;
}

/* ---- a graph ---- */

/* The nodes up to @end. */
static bool run_sliced(struct runner *r, struct cursor *c, int end, int64_t *used_us)
{
	while (c->node < end) {
		int first = c->node;
		int64_t started = now_us();
		uint64_t said_ns;
		bool ok;

		if (first) {
			rest(r, used_us);
			if (r->must_stop(r->ctx))
				return false;
			started = now_us();
		}
		c->slice_ns = slice_ns(r);
		said_ns = next_slice(c, end);
		if (c->node == first + 1 && said_ns > c->slice_ns) {
			ok = compute_cut(r, c->graph, first, c->first_tensor, used_us);
		} else {
			ok = compute_nodes(r, c->graph->cgraph, first, c->node);
			learn(r, said_ns, now_us() - started);
		}
		if (!ok)
			return false;
	}
	return true;
}

enum wire_status runner_run(struct runner *r, struct graphs *graphs, struct graphs_run *run,
			    struct ggml_cgraph *part, int64_t *used_us, const char **why)
{
	struct gg_graph *graph = run->graph;
	struct cursor c = {.graph = graph};
	int64_t started = now_us(), before = *used_us, took_us;
	enum wire_status status = WIRE_OK;
	bool is_short =
		graph->last_us ? graph->last_us < r->slice_us : graph->total_ns <= slice_ns(r);

	while (part) {
		bool ok = is_short ? compute(r, part) : run_sliced(r, &c, run->n_done, used_us);

		if (!ok)
			return WIRE_E_FAILED;
		part = graphs_run_next(graphs, run, &status, why);
	}
	if (status != WIRE_OK)
		return status;
	took_us =
		is_short ? now_us() - started : *used_us - before + now_us() - r->turn->started_us;
	if (is_short)
		learn(r, graph->total_ns, took_us);
	graph->last_us = took_us + 1;
	return WIRE_OK;
}
