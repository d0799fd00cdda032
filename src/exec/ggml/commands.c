/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of a session that are about graphs: questions about operations, definitions,
 * changes, runs. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "exec/ggml/commands.h"

enum {
	FOLLOW_US = 4000,     /* graphs faster than this run where the program does */
	LONG_RUN_US = 100000, /* after one as long we see whether its program is still there */
};

/* ---- questions ---- */

/* The tensors of a query, or NULL when the count and the length disagree. */
static const struct wire_tensor *query_tensors(struct gg_session *g, const struct wire_frame *f,
					       uint32_t n)
{
	uint32_t tail = f->body_bytes - (uint32_t)sizeof(struct wire_supports);

	if (n == 0 || n > WIRE_MAX_QUERY_TENSORS || tail != n * sizeof(struct wire_tensor))
		return NULL;
	return (const struct wire_tensor *)stream_tail(&g->s->stream, f);
}

static int supports(struct gg_session *g, const struct wire_frame *f, const struct wire_supports *c,
		    struct reply *reply)
{
	uint32_t n = c->n_tensors;
	const struct wire_tensor *t = query_tensors(g, f, n);
	bool offload = false, yes;

	if (!t)
		return -EPROTO;
	yes = graphs_supports(&g->graphs, t, n, &offload);
	reply->value = (uint64_t)yes | (uint64_t)offload << 1;
	return WIRE_OK;
}

static int alloc_size(struct gg_session *g, const struct wire_frame *f,
		      const struct wire_supports *c, struct reply *reply)
{
	uint32_t n = c->n_tensors;
	const struct wire_tensor *t = query_tensors(g, f, n);
	uint64_t bytes;

	if (!t)
		return -EPROTO;
	bytes = graphs_alloc_size(&g->graphs, t, n);
	reply->value = bytes;
	return bytes ? WIRE_OK : WIRE_E_INVALID;
}

/* ---- graphs ---- */

static void log_refusal(struct gg_session *g, const char *what, enum wire_status status,
			const char *why)
{
	if (status != WIRE_OK && log_allowed(&session_errors))
		log_warn("session of %s: %s refused: %s", g->s->program, what,
			 why ? why : wire_status_str[status]);
}

static int graph_define(struct gg_session *g, const struct wire_frame *f,
			const struct wire_graph_define *c)
{
	uint32_t tail = f->body_bytes - (uint32_t)sizeof(*c);
	struct wire_tensor *into;
	enum wire_status status;
	const char *why;
	int err;

	if (c->n_tensors > WIRE_MAX_TENSORS || tail != c->n_tensors * sizeof(*into) ||
	    !graphs_define(&g->graphs, c->graph, c->n_tensors, &into))
		return -EPROTO;
	g->last_graph = 0;
	if (!into)
		return session_refuse_tail(g->s, f);
	err = stream_tail_into(&g->s->stream, f, into);
	if (err)
		return err;
	status = graphs_defined(&g->graphs, c->graph, c->n_tensors, &why);
	log_refusal(g, "graph", status, why);
	return status;
}

/* The @n_runs of a patch as they come, @left bytes of them.  0 or -errno. */
static int take_runs(struct gg_session *g, struct graph_patch *patch, uint32_t n_runs,
		     uint32_t left)
{
	for (uint32_t i = 0; i < n_runs; i++) {
		struct wire_run run;
		const uint8_t *part;

		if (left < sizeof(run))
			return -EPROTO;
		part = stream_part(&g->s->stream, sizeof(run));
		if (!part)
			return -EPIPE;
		memcpy(&run, part, sizeof(run));
		left -= (uint32_t)sizeof(run);
		if (run.n_words > WIRE_TENSOR_WORDS || left < run.n_words * 8u)
			return -EPROTO;
		part = stream_part(&g->s->stream, run.n_words * 8u);
		if (!part)
			return -EPIPE;
		if (!graphs_patch_run(patch, &run, part))
			return -EPROTO;
		left -= run.n_words * 8u;
	}
	return left ? -EPROTO : 0;
}

static int graph_patch(struct gg_session *g, const struct wire_frame *f,
		       const struct wire_graph_patch *c)
{
	uint32_t tail = f->body_bytes - (uint32_t)sizeof(*c);
	struct graph_patch patch;
	enum wire_status status;
	const char *why;
	int err;

	if (!graphs_patch(&g->graphs, c->graph, tail, &patch))
		return -EPROTO;
	err = take_runs(g, &patch, c->n_runs, tail);
	if (err)
		return err;
	g->last_graph = 0;
	status = graphs_patched(&g->graphs, &patch, &why);
	log_refusal(g, "graph patch", status, why);
	return status;
}

static void count_run(struct gg_session *g, uint32_t graph)
{
	g->same_runs = graph == g->last_graph ? g->same_runs + 1 : 0;
	g->last_graph = graph;
}

/* On a reference device the program's thread and this one take turns: one waits while the other
 * works.  Handing over on the same CPU costs a context switch; on another it costs waking a halted
 * CPU, 50 to 100 us on a virtual machine, which a short graph feels.  So for short graphs we follow
 * the program to its CPU.  Only from the third run of the same graph on: another graph may want
 * another number of threads, and threads that ggml starts inherit our CPU mask.
 *
 * Measured on four CPUs with a 15M model: 0.66 to 0.92 of native before, 0.96 to 0.99 with. */
static void follow_cpu(struct gg_session *g, int cpu)
{
	bool follow =
		g->same_runs > 2 && g->last_run_us < FOLLOW_US && cpu >= 0 && cpu < CPU_SETSIZE;
	cpu_set_t set;

	if (!g->device->reference || cpu == g->followed_cpu || (!follow && g->followed_cpu < 0))
		return;
	if (follow) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
	} else {
		set = g->all_cpus;
	}
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		g->followed_cpu = follow ? cpu : -1;
}

static int graph_run(struct gg_session *g, const struct wire_graph_run *c)
{
	enum wire_status status;
	struct graphs_run run;
	const char *why;
	int64_t used_us = 0;
	struct ggml_cgraph *part = graphs_run_begin(&g->graphs, &run, c->graph, &status, &why);

	if (g->s->gone || (g->last_run_us > LONG_RUN_US && session_peer_gone(g->s)))
		return -EPIPE;
	if (!part) { /* refused, or empty */
		log_refusal(g, "graph run", status, why);
		return status;
	}
	count_run(g, c->graph);
	follow_cpu(g, c->cpu);
	session_begin_turn(g->s);
	status = runner_run(&g->runner, &g->graphs, &run, part, &used_us, &why);
	log_refusal(g, "graph run", status == WIRE_E_FAILED ? WIRE_OK : status, why);
	if (turn_is_overdue(&g->s->turn) && log_allowed(&session_errors))
		log_warn("session of %s: a graph kept others waiting for too long", g->s->program);
	session_add_used(g->s, used_us);
	g->last_run_us = used_us + session_end_turn(g->s);
	return status;
}

static int graph_free(struct gg_session *g, const struct wire_graph_free *c)
{
	return graphs_free(&g->graphs, c->graph) ? WIRE_OK : -EPROTO;
}

/* ---- all of them ---- */

static int weight(struct gg_session *g, const struct wire_weight *c)
{
	struct gg_buffer *buffer = buffers_find(&g->buffers, c->buffer);

	return buffer ? (int)gg_buffer_weight(&g->buffers, buffer, c) : -EPROTO;
}

int gg_command(void *state, const struct wire_frame *f, const void *fixed, struct reply *reply)
{
	struct gg_session *g = state;

	switch (f->op) {
	case GG_OP_SUPPORTS:
		return supports(g, f, fixed, reply);
	case GG_OP_ALLOC_SIZE:
		return alloc_size(g, f, fixed, reply);
	case GG_OP_WEIGHT:
		return weight(g, fixed);
	case GG_OP_GRAPH_DEFINE:
		return graph_define(g, f, fixed);
	case GG_OP_GRAPH_PATCH:
		return graph_patch(g, f, fixed);
	case GG_OP_GRAPH_RUN:
		return graph_run(g, fixed);
	case GG_OP_GRAPH_FREE:
		return graph_free(g, fixed);
	default:
		return -EPROTO;
	}
}

/* A run has been booked. */
bool gg_command_is_long(const struct wire_frame *f)
{
	return f->op == GG_OP_GRAPH_DEFINE || f->op == GG_OP_GRAPH_PATCH;
}
