/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: one pass over the tensors.  Each must be sound by itself: a known type,
 * sizes that do not overflow, an extent inside its buffer, references to lower entries only.  Each
 * node must then obey the rule of its operation (op_rules.h).
 *
 * What is left is the one case in which not the shapes but the data decides which memory is
 * touched: the index operand of a few operations.  Where its data comes from is decided by memory
 * and not by the graph's edges, since a peer may let tensors overlap at will: the last node before
 * the use that writes to any byte of the index.  Without such a node the data is the peer's, or
 * left by an earlier graph, and is checked before each run.  With one, it may be an operation whose
 * results are in range by nature (a sort), of which the index is a view, or a copy of something
 * for which the same holds.  Of anything else the values are looked at when they are there: the run
 * stops in front of the node that uses them.  A stop costs the device's queue running empty. */
#include "exec/ggml/graph_check.h"

#include <stdlib.h>
#include <string.h>

#include "exec/ggml/op_cost.h"
#include "exec/ggml/op_rules.h"

enum {
	MAX_COPIES = 8,           /* of an index, between its source and its use */
	MAX_SCANS_PER_NODE = 256, /* nodes looked at on the search for writers, on average */
};

#define MAX_ELEMENTS (INT64_C(1) << 40)

/* Nobody can take the device back while a back end is busy with a node, or, where a node can be
 * computed in pieces (op_cut.h), with the smallest piece of it.  Four seconds of one core of a slow
 * CPU, or two of an operation that gets one thread only, are at most two on two cores.  What models
 * of today compute with batches of 512 tokens is less; their large products can be cut.
 *
 * What is cut can be interrupted, so its limit is there for devices that compute it in one go: ten
 * hours of that one core.  The largest product of a 70B model with a batch of 4096 tokens takes it
 * ten minutes, and attention to 128 Ki tokens an hour or two; a GPU is ten thousand times as fast
 * and has it done in a few seconds.
 *
 * A graph may be as long as it likes, since it is run in slices.  All of this is said of queries as
 * well: a program that asks first computes such a node itself. */
#define MAX_PIECE_NS (UINT64_C(4) * 1000 * 1000 * 1000)
/* An accelerator computes a node in one go.  Even one that is slow, or a kernel that uses little of
 * it, is as fast as that many slow cores. */
#define ACCELERATOR_CORES 64
#define MAX_NODE_NS       (UINT64_C(36) * 1000 * 1000 * 1000 * 1000)

struct check {
	const struct graph_env *env;
	const struct wire_tensor *t;
	uint32_t n;
	bool query;
	struct graph_needs *needs; /* NULL: a query */
	uint64_t scans_left;
	uint32_t buffer; /* the last one asked for */
	uint64_t buffer_bytes;
};

/* ---- a tensor by itself ---- */

static const char *check_shape(const struct graph_types *types, const struct wire_tensor *t)
{
	int64_t n = 1;
	bool empty = tensor_empty(t);
	uint32_t bytes;

	if (t->type >= WIRE_MAX_TYPES || !types->block[t->type] || !types->bytes[t->type])
		return "an unknown type";
	bytes = types->bytes[t->type];
	for (int i = 0; i < WIRE_MAX_DIMS; i++) {
		if (t->ne[i] < 0 || t->ne[i] > INT32_MAX)
			return "a dimension out of range";
		if (t->nb[i] % bytes)
			return "a stride that is no multiple of the element";
		if (!empty && t->nb[i] == 0 && t->ne[i] > 1)
			return "a stride of 0";
		if (!empty && n > MAX_ELEMENTS / t->ne[i])
			return "too many elements";
		n = empty ? 0 : n * t->ne[i];
	}
	if (!empty && n / t->ne[0] > INT32_MAX)
		return "too many rows";
	if (t->ne[0] % types->block[t->type])
		return "a row that is no whole number of blocks";
	if (types->block[t->type] > 1 && t->nb[0] != bytes)
		return "blocks with gaps";
	return NULL;
}

static const char *check_place(struct check *c, const struct wire_tensor *t)
{
	uint64_t extent;

	if (t->buffer != c->buffer || !c->buffer) {
		c->buffer = 0;
		if (!t->buffer || !c->env->buffer_size(c->env->ctx, t->buffer, &c->buffer_bytes))
			return "no such buffer";
		c->buffer = t->buffer;
	}
	if (!tensor_extent(c->env->types, t, &extent) || t->offset > c->buffer_bytes ||
	    extent > c->buffer_bytes - t->offset)
		return "outside of its buffer";
	if (c->env->types->block[t->type] == 1 ? t->offset % c->env->types->bytes[t->type]
					       : t->offset % 2)
		return "not aligned to its elements";
	return NULL;
}

static const char *check_references(const struct check *c, uint32_t at)
{
	const struct wire_tensor *t = &c->t[at];
	bool node = t->flags & WIRE_TENSOR_NODE;

	if (t->flags & ~(uint32_t)WIRE_TENSOR_ALL)
		return "unknown flags";
	if (!memchr(t->name, 0, sizeof(t->name)))
		return "a name without an end";
	if (!node && t->op != WIRE_T_NONE)
		return "a leaf with an operation";
	for (int i = 0; i < WIRE_MAX_SRC; i++) {
		bool itself = t->op == WIRE_T_CPY && i == 1 && t->src[i] == at + 1;

		if ((t->src[i] > at && !itself) || (t->src[i] && t->op == WIRE_T_NONE))
			return "a source that does not come before";
	}
	if (t->view_src > at)
		return "a view of what does not come before";
	return NULL;
}

/* Back ends find the data of a view through the tensor viewed. */
static const char *check_view(const struct check *c, const struct wire_tensor *t)
{
	const struct wire_tensor *base;
	uint64_t extent, whole;

	if (!t->view_src)
		return t->view_offset ? "an offset into nothing" : NULL;
	base = &c->t[t->view_src - 1];
	if (base->view_src)
		return "a view of a view";
	if (t->buffer != base->buffer || t->view_offset > UINT64_MAX - base->offset ||
	    t->offset != base->offset + t->view_offset)
		return "a view that lies elsewhere";
	tensor_extent(c->env->types, t, &extent); /* cannot overflow: check_place() */
	tensor_extent(c->env->types, base, &whole);
	if (extent && (t->view_offset > whole || extent > whole - t->view_offset))
		return "a view beyond what it is of";
	return NULL;
}

/* ---- where index values come from ---- */

static bool is_view(const struct wire_tensor *t)
{
	return t->op == WIRE_T_VIEW || t->op == WIRE_T_RESHAPE || t->op == WIRE_T_PERMUTE ||
	       t->op == WIRE_T_TRANSPOSE;
}

bool graph_computes(const struct wire_tensor *t)
{
	return (t->flags & WIRE_TENSOR_NODE) && (t->flags & WIRE_TENSOR_COMPUTE) &&
	       t->op != WIRE_T_NONE && !is_view(t);
}

bool graph_idle(const struct wire_tensor *t)
{
	return t->op != WIRE_T_NONE && !is_view(t) && !graph_computes(t);
}

/* Is tensor @at that node, or a view of it by the graph's edges?  A back end that fuses a sort with
 * what follows it leaves out what the graph does not use: all of the sort's result is there only
 * for those that the back end can see using it. */
static bool derives_from(const struct check *c, uint32_t at, uint32_t node)
{
	while (at > node && is_view(&c->t[at]))
		at = c->t[at].src[0] - 1;
	return at == node;
}

struct span {
	uint32_t buffer;
	uint64_t begin, end;
};

static struct span span_of(const struct check *c, const struct wire_tensor *t)
{
	struct span s = {.buffer = t->buffer, .begin = t->offset};
	uint64_t extent = 0;

	tensor_extent(c->env->types, t, &extent); /* cannot overflow: check_place() */
	s.end = s.begin + extent;
	return s;
}

/* Nodes in [before, until) do not write to something that is looked at before the first of them. */
struct clean {
	uint32_t before, until;
};

static bool overlap(const struct check *c, const struct wire_tensor *t, struct span x)
{
	struct span s;

	if (t->buffer != x.buffer || t->offset >= x.end)
		return false;
	s = span_of(c, t);
	return s.begin < x.end && x.begin < s.end;
}

static bool writes_into(const struct check *c, const struct wire_tensor *t, struct span x)
{
	unsigned also = op_written_sources(t->op);

	if (!also)
		return overlap(c, t, x) && graph_computes(t);
	for (int i = 0; i < WIRE_MAX_SRC; i++)
		if (also >> i & 1 && overlap(c, &c->t[t->src[i] - 1], x))
			return graph_computes(t);
	return false; /* its result is one of these */
}

/* The last node in [@from, @until) that writes into @x; -1: none, -2: gave up. */
static int64_t last_writer(struct check *c, struct span x, uint32_t from, uint32_t until)
{
	for (uint32_t i = until; i-- > from;) {
		if (!c->scans_left--) {
			c->scans_left = 0;
			return -2;
		}
		if (writes_into(c, &c->t[i], x))
			return i;
	}
	return -1;
}

/* Entries for the same elements at the same place and time are one. */
static struct graph_index *find_index(struct check *c, const struct wire_tensor *t, uint32_t before)
{
	for (uint32_t i = c->needs->n_index; i-- > 0 && c->scans_left; c->scans_left--) {
		const struct wire_tensor *e = &c->t[c->needs->index[i].tensor];

		if (c->needs->index[i].before == before && e->buffer == t->buffer &&
		    e->offset == t->offset && e->type == t->type &&
		    !memcmp(e->ne, t->ne, sizeof(e->ne)) && !memcmp(e->nb, t->nb, sizeof(e->nb)))
			return &c->needs->index[i];
	}
	return NULL;
}

static const char TOO_MANY[] = "too many index tensors";

static struct graph_index *add_index(struct check *c, uint32_t at, uint32_t before, int64_t limit)
{
	struct graph_index *e = &c->needs->index[c->needs->n_index];

	if (c->needs->n_index == c->needs->max_index || !c->scans_left)
		return NULL;
	c->needs->n_index++;
	*e = (struct graph_index){.tensor = at, .before = before, .limit = limit};
	return e;
}

/* Tensor @at is to be looked at before tensor @before; nodes from there until @until leave it as it
 * is. */
static const char *look_at(struct check *c, uint32_t at, uint32_t before, uint32_t until,
			   int64_t limit)
{
	struct graph_index *e = find_index(c, &c->t[at], before);

	if (!e)
		e = add_index(c, at, before, limit);
	if (!e)
		return TOO_MANY;
	if (limit < e->limit)
		e->limit = limit;
	if (until > e->clean_until)
		e->clean_until = until;
	return NULL;
}

static const char *look_before(struct check *c, uint32_t at, uint32_t reader, int64_t limit)
{
	struct graph_index *e;

	if (c->needs->n_stops == GRAPH_MAX_STOPS)
		return "too many indices computed by the graph";
	e = add_index(c, at, reader, limit);
	if (!e)
		return TOO_MANY;
	e->clean_until = reader + 1;
	c->needs->n_stops++;
	return NULL;
}

/* From when until when nodes are known not to write into @x. */
static struct clean clean_of(struct check *c, struct span x)
{
	struct clean best = {0};

	for (uint32_t i = 0; i < c->needs->n_index && c->scans_left; i++, c->scans_left--) {
		const struct graph_index *e = &c->needs->index[i];
		struct span s;

		if (e->clean_until <= best.until || c->t[e->tensor].buffer != x.buffer)
			continue;
		s = span_of(c, &c->t[e->tensor]);
		if (s.begin <= x.begin && x.end <= s.end)
			best = (struct clean){e->before, e->clean_until};
	}
	return best;
}

static bool sorts(uint32_t op)
{
	return op == WIRE_T_ARGSORT || op == WIRE_T_TOP_K || op == WIRE_T_ARGMAX;
}

static bool copies(uint32_t op)
{
	return op == WIRE_T_CPY || op == WIRE_T_CONT || op == WIRE_T_DUP || op == WIRE_T_REPEAT ||
	       op == WIRE_T_GET_ROWS;
}

/* Is all of @t a result of node @w, as it is? */
static bool written_whole(const struct check *c, const struct wire_tensor *w,
			  const struct wire_tensor *t)
{
	struct span x = span_of(c, t), s = span_of(c, w);

	return w->type == t->type && s.begin <= x.begin && x.end <= s.end &&
	       tensor_dense(c->env->types, w);
}

/* Is tensor @index, read by node @reader, within [0, @limit) at that time?  The node itself counts
 * as a writer. */
static const char *check_index(struct check *c, uint32_t index, uint32_t reader, int64_t limit)
{
	uint32_t at = index, until = reader + 1;
	bool picked = false; /* rows of what is being looked at, maybe not all */

	for (int steps = 0; steps < MAX_COPIES; steps++) {
		const struct wire_tensor *t = &c->t[at], *w;
		struct clean clean;
		int64_t writer;

		if (tensor_empty(t))
			return NULL;
		clean = clean_of(c, span_of(c, t));
		writer = last_writer(c, span_of(c, t), clean.until, until);
		if (writer == -1 && !picked)
			return look_at(c, at, clean.before, until, limit);
		if (writer == -2)
			return "too many nodes to look for who writes an index";
		if (writer == (int64_t)reader)
			return "an index that its reader writes to";
		if (writer < 0 || writer == (int64_t)until - 1)
			break;
		w = &c->t[writer];
		if (!written_whole(c, w, t))
			break;
		if (sorts(w->op) && derives_from(c, at, (uint32_t)writer) &&
		    c->t[w->src[0] - 1].ne[0] <= limit)
			return NULL;
		if (!copies(w->op))
			break;
		picked = picked || w->op == WIRE_T_GET_ROWS;
		at = w->src[0] - 1;
		until = (uint32_t)writer + 1;
		if (c->t[at].type != w->type)
			break;
	}
	return look_before(c, index, reader, limit);
}

static int compare_before(const void *a, const void *b)
{
	uint32_t x = ((const struct graph_index *)a)->before;
	uint32_t y = ((const struct graph_index *)b)->before;

	return (x > y) - (x < y);
}

/* ---- a node ---- */

/* Do some of the elements share bytes?  Also said of those that merely interleave, which nobody
 * writes to. */
static bool overlaps_itself(const struct graph_types *types, const struct wire_tensor *t)
{
	uint64_t span = types->bytes[t->type];
	unsigned left = (1u << WIRE_MAX_DIMS) - 1;

	while (left) { /* from the smallest stride to the largest */
		int min = -1;
		uint64_t n;

		for (int i = 0; i < WIRE_MAX_DIMS; i++)
			if (left & 1u << i && (min < 0 || t->nb[i] < t->nb[min]))
				min = i;
		left &= ~(1u << min);
		n = min ? (uint64_t)t->ne[min] : (uint64_t)t->ne[0] / types->block[t->type];
		if (n > 1 && t->nb[min] < span)
			return true;
		span += (n - 1) * t->nb[min]; /* cannot overflow: check_place() */
	}
	return false;
}

static uint64_t plus(uint64_t x, uint64_t y)
{
	uint64_t sum;

	return __builtin_add_overflow(x, y, &sum) ? UINT64_MAX : sum;
}

/* A back end may not be stoppable within a node, or at all. */
static const char *check_cost(const struct graph_env *env, const struct op_cost *cost)
{
	uint64_t cores = env->accelerator ? ACCELERATOR_CORES : 1;

	return cost->piece_ns / cores > MAX_PIECE_NS || cost->time_ns > MAX_NODE_NS
		       ? "more work than is allowed"
		       : NULL;
}

static void add_cost(struct graph_needs *needs, uint32_t at, const struct op_cost *cost)
{
	needs->time_ns = plus(needs->time_ns, cost->time_ns);
	if (needs->cost_ns)
		needs->cost_ns[at] = cost->time_ns;
	if (needs->scratch < cost->scratch)
		needs->scratch = cost->scratch;
	if (needs->thread_scratch < cost->thread_scratch)
		needs->thread_scratch = cost->thread_scratch;
}

static const char *check_node(struct check *c, uint32_t at)
{
	const struct wire_tensor *t = &c->t[at];
	const struct op_rule *rule = op_rule_find(t->op);
	struct op_args a = {.env = c->env, .dst = t, .query = c->query};
	struct op_cost cost;
	const char *why;

	if (!rule || !wire_bit(c->env->ops, t->op))
		return "an operation that is not offered";
	for (int i = 0; i < WIRE_MAX_SRC; i++)
		a.src[i] = t->src[i] ? &c->t[t->src[i] - 1] : NULL;
	why = op_rule_check(rule, &a);
	if (!why && !c->query && graph_computes(t) && !tensor_empty(t) &&
	    overlaps_itself(c->env->types, t)) /* threads would race for the bytes */
		why = "a result that overlaps itself";
	if (why || (!c->query && graph_idle(t)))
		return why;
	cost = op_cost_of(rule, &a);
	why = check_cost(c->env, &cost);
	if (why || c->query)
		return why;
	add_cost(c->needs, at, &cost);
	if (rule->limit == OP_LIMIT_NONE || tensor_empty(t))
		return NULL;
	return check_index(c, t->src[rule->index] - 1, at, op_rule_limit(rule, &a));
}

static const char *check_tensor(struct check *c, uint32_t at)
{
	const struct wire_tensor *t = &c->t[at];
	const char *why = check_references(c, at);

	if (!why)
		why = check_shape(c->env->types, t);
	if (!why && !c->query)
		why = check_place(c, t);
	if (!why && !c->query)
		why = check_view(c, t);
	if (!why && t->op != WIRE_T_NONE)
		why = check_node(c, at);
	return why;
}

bool graph_check(const struct graph_env *env, const struct wire_tensor *t, uint32_t n,
		 struct graph_needs *needs, struct graph_fault *fault)
{
	struct check c = {
		.env = env,
		.t = t,
		.n = n,
		.needs = needs,
		.scans_left = (uint64_t)n * MAX_SCANS_PER_NODE + (1 << 16),
	};

	*needs = (struct graph_needs){.index = needs->index,
				      .max_index = needs->max_index,
				      .cost_ns = needs->cost_ns};
	if (needs->cost_ns)
		memset(needs->cost_ns, 0, n * sizeof(*needs->cost_ns));
	for (uint32_t i = 0; i < n; i++) {
		*fault = (struct graph_fault){i, check_tensor(&c, i)};
		if (fault->why)
			return false;
	}
	if (needs->n_stops)
		qsort(needs->index, needs->n_index, sizeof(*needs->index), compare_before);
	return true;
}

bool graph_check_query(const struct graph_env *env, const struct wire_tensor *t, uint32_t n,
		       struct graph_fault *fault)
{
	struct check c = {.env = env, .t = t, .n = n, .query = true};

	for (uint32_t i = 0; i < n; i++) {
		*fault = (struct graph_fault){i, check_tensor(&c, i)};
		if (fault->why)
			return false;
	}
	return n > 0;
}

bool graph_check_knows(uint32_t op)
{
	return op_rule_find(op) != NULL;
}
