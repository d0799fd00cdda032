/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of a session that are about graphs: questions about operations, definitions,
 * changes, runs. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "exec/ggml/session_parts.h"

enum {
	FOLLOW_US = 4000,     /* graphs faster than this run where the program does */
	LONG_RUN_US = 100000, /* after one as long we see whether its program is still there */
};

/* ---- questions ---- */

/* The tensors of a query, or NULL when the count and the length disagree. */
static const struct wire_tensor *query_tensors(struct session *s, const struct wire_frame *f,
					       uint32_t n)
{
	uint32_t tail = f->body_bytes - (uint32_t)sizeof(struct wire_supports);

	if (n == 0 || n > WIRE_MAX_QUERY_TENSORS || tail != n * sizeof(struct wire_tensor))
		return NULL;
	return (const struct wire_tensor *)stream_tail(&s->stream, f);
}

int on_supports(struct session *s, const struct wire_frame *f, const struct wire_supports *c)
{
	uint32_t n = c->n_tensors;
	const struct wire_tensor *t = query_tensors(s, f, n);
	bool offload = false, yes;

	if (!t)
		return -EPROTO;
	yes = graphs_supports(&s->graphs, t, n, &offload);
	return session_answer_data(s, f->op, WIRE_OK, (uint64_t)yes | (uint64_t)offload << 1, NULL,
				   0);
}

int on_alloc_size(struct session *s, const struct wire_frame *f, const struct wire_supports *c)
{
	uint32_t n = c->n_tensors;
	const struct wire_tensor *t = query_tensors(s, f, n);
	uint64_t bytes;

	if (!t)
		return -EPROTO;
	bytes = graphs_alloc_size(&s->graphs, t, n);
	return session_answer_data(s, f->op, bytes ? WIRE_OK : WIRE_E_INVALID, bytes, NULL, 0);
}

/* ---- graphs ---- */

static void log_refusal(struct session *s, const char *what, enum wire_status status,
			const char *why)
{
	if (status != WIRE_OK && log_allowed(&session_errors))
		log_warn("session of %s: %s refused: %s", s->program, what,
			 why ? why : wire_status_str[status]);
}

int on_graph_define(struct session *s, const struct wire_frame *f,
		    const struct wire_graph_define *fixed)
{
	struct wire_graph_define c = *fixed;
	uint32_t tail = f->body_bytes - (uint32_t)sizeof(c);
	struct wire_tensor *into;
	enum wire_status status;
	const char *why;
	int err;

	if (c.n_tensors > WIRE_MAX_TENSORS || tail != c.n_tensors * sizeof(*into) ||
	    !graphs_define(&s->graphs, c.graph, c.n_tensors, &into))
		return -EPROTO;
	s->last_graph = 0;
	if (!into)
		return session_refuse_tail(s, f);
	err = stream_tail_into(&s->stream, f, into);
	if (err)
		return err;
	status = graphs_defined(&s->graphs, c.graph, c.n_tensors, &why);
	log_refusal(s, "graph", status, why);
	return session_note(s, status);
}

/* The @n_runs of a patch as they come, @left bytes of them.  0 or -errno. */
static int take_runs(struct session *s, struct graph_patch *patch, uint32_t n_runs, uint32_t left)
{
	for (uint32_t i = 0; i < n_runs; i++) {
		struct wire_run run;
		const uint8_t *part;

		if (left < sizeof(run))
			return -EPROTO;
		part = stream_part(&s->stream, sizeof(run));
		if (!part)
			return -EPIPE;
		memcpy(&run, part, sizeof(run));
		left -= (uint32_t)sizeof(run);
		if (run.n_words > WIRE_TENSOR_WORDS || left < run.n_words * 8u)
			return -EPROTO;
		part = stream_part(&s->stream, run.n_words * 8u);
		if (!part)
			return -EPIPE;
		if (!graphs_patch_run(patch, &run, part))
			return -EPROTO;
		left -= run.n_words * 8u;
	}
	return left ? -EPROTO : 0;
}

int on_graph_patch(struct session *s, const struct wire_frame *f,
		   const struct wire_graph_patch *fixed)
{
	struct wire_graph_patch c = *fixed;
	uint32_t tail = f->body_bytes - (uint32_t)sizeof(c);
	struct graph_patch patch;
	enum wire_status status;
	const char *why;
	int err;

	if (!graphs_patch(&s->graphs, c.graph, tail, &patch))
		return -EPROTO;
	err = take_runs(s, &patch, c.n_runs, tail);
	if (err)
		return err;
	s->last_graph = 0;
	status = graphs_patched(&s->graphs, &patch, &why);
	log_refusal(s, "graph patch", status, why);
	return session_note(s, status);
}

static void count_run(struct session *s, uint32_t graph)
{
	s->same_runs = graph == s->last_graph ? s->same_runs + 1 : 0;
	s->last_graph = graph;
}

/* On a reference device the program's thread and this one take turns: one waits while the other
 * works.  Handing over on the same CPU costs a context switch; on another it costs waking a halted
 * CPU, 50 to 100 us on a virtual machine, which a short graph feels.  So for short graphs we follow
 * the program to its CPU.  Only from the third run of the same graph on: another graph may want
 * another number of threads, and threads that ggml starts inherit our CPU mask.
 *
 * Measured on four CPUs with a 15M model: 0.66 to 0.92 of native before, 0.96 to 0.99 with. */
static void follow_cpu(struct session *s, int cpu)
{
	bool follow =
		s->same_runs > 2 && s->last_run_us < FOLLOW_US && cpu >= 0 && cpu < CPU_SETSIZE;
	cpu_set_t set;

	if (!s->device->reference || cpu == s->followed_cpu || (!follow && s->followed_cpu < 0))
		return;
	if (follow) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
	} else {
		set = s->all_cpus;
	}
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		s->followed_cpu = follow ? cpu : -1;
}

int on_graph_run(struct session *s, const struct wire_frame *f, const struct wire_graph_run *c)
{
	enum wire_status status;
	struct graphs_run run;
	const char *why;
	int64_t used_us = 0;
	struct ggml_cgraph *part = graphs_run_begin(&s->graphs, &run, c->graph, &status, &why);

	(void)f;
	if (s->gone || (s->last_run_us > LONG_RUN_US && session_peer_gone(s)))
		return -EPIPE;
	if (!part) { /* refused, or empty */
		log_refusal(s, "graph run", status, why);
		return session_note(s, status);
	}
	count_run(s, c->graph);
	follow_cpu(s, c->cpu);
	session_begin_turn(s);
	status = runner_run(&s->runner, &s->graphs, &run, part, &used_us, &why);
	log_refusal(s, "graph run", status == WIRE_E_FAILED ? WIRE_OK : status, why);
	if (turn_is_overdue(&s->turn) && log_allowed(&session_errors))
		log_warn("session of %s: a graph kept others waiting for too long", s->program);
	session_add_used(s, used_us);
	s->last_run_us = used_us + session_end_turn(s);
	return session_note(s, status);
}

int on_graph_free(struct session *s, const struct wire_frame *f, const struct wire_graph_free *c)
{
	(void)f;
	return graphs_free(&s->graphs, c->graph) ? 0 : -EPROTO;
}
