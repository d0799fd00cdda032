/* SPDX-License-Identifier: Apache-2.0
 *
 * run_graph: shows that what the graph check lets through does no harm to a real ggml.
 *
 *   run_graph [--ggml-dir DIR] [--seconds N] [--seed S] [--one SEED] [--threads N]
 *             [--cut] [--time [--only OP] [--said MS]]
 *
 * Makes random graphs that are nearly valid, runs those that pass on ggml's CPU back end in a
 * child, with hostile data, each buffer against a page nobody may touch, and the scratch memory
 * too.  A crash, an abort or a changed byte beside a buffer is printed with the seed that --one
 * repeats; the exit status is 1 if there was any.
 *
 * --cut: also computes each last node that can be cut in pieces, and compares.
 *
 * --time: makes large valid graphs of every operation instead, runs each on one thread, and prints
 * for each operation how many times longer one took, at most, than the check had said.  What is
 * said holds for a core half as fast as the one of the table: of a core that is slower still, just
 * then, what it is slower is taken off.  --said takes graphs of which the check says MS to six
 * times that. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
#include "exec/ggml/ggml_host.h"
#include "exec/ggml/op_cut.h"
#include "exec/ggml/op_rules.h"
#include "lib/bound.h"
#include "lib/core_probe.h"
#include "lib/op_shapes.h"

enum {
	PAGE = 4096,
	ARENA = 4 << 20,
	TIMED_ARENA = 128 << 20,
	SLOW_SECONDS = 20,
	FIRST_CHILD_GRAPHS = 400, /* per child */
};

struct progress { /* shared with the child */
	uint64_t seed, made, ran, ran_by_op[WIRE_NUM_TENSOR_OPS];
	uint64_t cut_by_op[WIRE_NUM_TENSOR_OPS], differ_by_op[WIRE_NUM_TENSOR_OPS];
	int64_t took_us;
	char what[256];
};

static struct ggml_host *host;
static struct progress *progress;
static uint8_t *arenas[OP_GRAPH_MAX_TENSORS + 1]; /* each ARENA bytes between guard pages */
static int n_threads = 2;
static size_t arena_bytes = ARENA;
static bool cutting; /* compare nodes with their pieces */

/* ---- scratch memory with guards: C++'s new[] and delete[] as ggml calls them ---- */

PIL_EXPORT void *_Znam(size_t n);
PIL_EXPORT void _ZdaPv(void *p);
PIL_EXPORT void _ZdaPvm(void *p, size_t n);

static uint8_t *guarded(size_t bytes, size_t align)
{
	size_t body = (bytes + align - 1) / align * align;
	size_t map = (body + PAGE - 1) / PAGE * PAGE;
	uint8_t *p = mmap(NULL, map + 2 * PAGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED || mprotect(p + PAGE, map, PROT_READ | PROT_WRITE))
		abort();
	return p + PAGE + map - body;
}

void *_Znam(size_t n)
{
	uint8_t *p = guarded(n + 64, 64);

	memcpy(p, &n, sizeof(n));
	return p + 64;
}

void _ZdaPv(void *q)
{
	uint8_t *p = (uint8_t *)q - 64;
	size_t n, body, map;

	if (!q)
		return;
	memcpy(&n, p, sizeof(n));
	body = (n + 64 + 63) / 64 * 64;
	map = (body + PAGE - 1) / PAGE * PAGE;
	munmap(p + body - map - PAGE, map + 2 * PAGE);
}

void _ZdaPvm(void *p, size_t n)
{
	(void)n;
	_ZdaPv(p);
}

/* ---- one graph ---- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 31) * 0x9e3779b97f4a7c15u;
	return x ^ x >> 29;
}

static bool make_graph(uint64_t seed, struct op_graph *g, struct op_random *r)
{
	uint32_t n;

	r->state = mix(seed);
	op_shapes_make(g, op_random_below(r, op_shapes_count()), r);
	if (op_random_below(r, 2))
		op_shapes_relayout(g, r);
	n = cutting ? 0 : op_random_below(r, 4);
	for (uint32_t i = 0; i < n; i++)
		op_shapes_mutate(g, r);
	return op_shapes_fit(g, ARENA / 2);
}

static void describe(const struct op_graph *g)
{
	const struct wire_tensor *t = &g->t[g->n - 1];

	snprintf(progress->what, sizeof(progress->what), "%s type %u params %d %d %d %d",
		 wire_tensor_op_str[t->op], t->type, t->params[0], t->params[1], t->params[2],
		 t->params[3]);
}

static void print_graph(const struct op_graph *g)
{
	for (uint32_t i = 0; i < g->n; i++) {
		const struct wire_tensor *t = &g->t[i];

		printf("  %2u %-18s type %2u ne %ld %ld %ld %ld nb %lu %lu %lu %lu at %u+%lu src",
		       i + 1, wire_tensor_op_str[t->op], t->type, t->ne[0], t->ne[1], t->ne[2],
		       t->ne[3], t->nb[0], t->nb[1], t->nb[2], t->nb[3], t->buffer, t->offset);
		for (int s = 0; s < WIRE_MAX_SRC; s++)
			if (t->src[s])
				printf(" %u", t->src[s]);
		printf(" params");
		for (int p = 0; p < WIRE_MAX_PARAMS && t->op; p++)
			printf(" %d", t->params[p]);
		printf("\n");
	}
}

/* Where buffer @handle starts: right or left in its arena. */
static uint8_t *place(const struct op_graph *g, uint32_t handle, bool right)
{
	uint64_t room = arena_bytes - g->buffer_bytes[handle];

	return arenas[handle] + (right ? room & ~UINT64_C(1) : 0);
}

static float odd_float(struct op_random *r)
{
	static const float odd[] = {0.0f,  -0.0f, NAN,    INFINITY, -INFINITY, 1e-42f,
				    3e38f, 1e30f, 1e-30f, 65504.0f, -1.0f,     1.0f};

	if (op_random_below(r, 8) == 0)
		return odd[op_random_below(r, ARRAY_SIZE(odd))];
	return (float)((int)op_random_below(r, 2001) - 1000) / 500.0f;
}

static void fill(const struct op_graph *g, uint8_t *const *base, struct op_random *r)
{
	bool noise = op_random_below(r, 3) == 0;
	bool slow = r->scale && op_random_below(r, 4) == 0; /* too small for fast paths */

	for (uint32_t h = 1; h <= OP_GRAPH_MAX_TENSORS; h++) {
		uint64_t n = g->buffer_bytes[h];

		for (uint64_t i = 0; i + 4 <= n; i += 4) {
			float f = slow ? 1e-40f : odd_float(r);
			uint32_t bits = op_random_below(r, UINT32_MAX) * 2654435761u;

			memcpy(base[h] + i, noise && !slow ? (void *)&bits : (void *)&f, 4);
		}
	}
}

static void set_index(const struct wire_tensor *t, uint8_t *data, int64_t limit,
		      struct op_random *r)
{
	for (int64_t i = 0; i < t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; i++) {
		int64_t x = i, at = 0, v;

		for (int d = 0; d < WIRE_MAX_DIMS; d++, x /= t->ne[d - 1])
			at += x % t->ne[d] * (int64_t)t->nb[d];
		v = op_random_below(r, (uint32_t)limit);
		if (op_random_below(r, 3) == 0)
			v = limit - 1;
		memcpy(data + at, &v, t->type == OP_I64 ? 8 : 4);
	}
}

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int64_t cpu_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* The same but for the order in which products were summed up. */
static bool is_near(const uint8_t *x, const uint8_t *y, uint64_t bytes)
{
	float a, b, most = 0;

	for (uint64_t i = 0; i + 4 <= bytes; i += 4) {
		memcpy(&a, x + i, 4);
		if (isfinite(a) && fabsf(a) > most)
			most = fabsf(a);
	}
	for (uint64_t i = 0; i + 4 <= bytes; i += 4) {
		memcpy(&a, x + i, 4);
		memcpy(&b, y + i, 4);
		if (isfinite(a) && isfinite(b) && fabsf(a / 2 - b / 2) > most * 1e-4f)
			return false;
	}
	return true;
}

static bool is_same(const struct wire_tensor *w, const uint8_t *x, const uint8_t *y, uint64_t bytes)
{
	for (uint64_t i = 0; w->type == OP_F32 && i + 4 <= bytes; i += 4) {
		float a, b;

		memcpy(&a, x + i, 4);
		memcpy(&b, y + i, 4);
		if (memcmp(x + i, y + i, 4) && (isfinite(a) || isfinite(b)))
			return false;
	}
	return w->type == OP_F32 || !memcmp(x, y, bytes);
}

/* As run.c does it, but for small nodes smaller. */
static int64_t next_piece(const struct op_cut *cut, uint32_t op, int64_t left, struct op_random *r)
{
	if (op == WIRE_T_FLASH_ATTN_EXT || op_random_below(r, 2))
		return op_cut_round(cut, cut->tile, left);
	return op_cut_round(cut, cut->small + op_random_below(r, (uint32_t)left), left);
}

/* Is the last node the same when it is computed in pieces? */
static void compare_pieces(const struct op_graph *g, struct ggml_backend *backend,
			   const struct ggml_cgraph *graph, uint8_t *result, struct op_random *r)
{
	const struct wire_tensor *w = &g->t[g->n - 1];
	const struct ggml_tensor *whole = graph->nodes[graph->n_nodes - 1];
	struct graph_env env = {.types = &host->types};
	struct op_args a = {.env = &env, .dst = w};
	struct ggml_tensor piece, src[WIRE_MAX_SRC], *nodes[] = {&piece};
	struct ggml_cgraph view = *graph;
	uint64_t bytes = g->buffer_bytes[w->buffer];
	uint8_t *saved = malloc(bytes), *before = malloc(bytes);
	struct op_cut cut;

	for (int i = 0; i < WIRE_MAX_SRC; i++)
		a.src[i] = w->src[i] ? &g->t[w->src[i] - 1] : NULL;
	cut = op_cut_of(&a);
	memcpy(before, result, bytes);
	if (cut.n < 2 || graph->n_nodes > 1 ||
	    host->api.ggml_backend_graph_compute(backend, (void *)graph))
		goto done;
	memcpy(saved, result, bytes);
	memcpy(result, before, bytes);
	view.nodes = nodes;
	view.n_nodes = 1;
	for (int64_t first = 0, n; first < cut.n; first += n) {
		n = next_piece(&cut, w->op, cut.n - first, r);
		op_cut_piece(&cut, whole, first, n, &piece, src);
		if (host->api.ggml_backend_graph_compute(backend, &view))
			goto done;
	}
	progress->cut_by_op[w->op]++;
	if (w->op == WIRE_T_MUL_MAT_ID ? !is_near(saved, result, bytes)
				       : !is_same(w, saved, result, bytes)) {
		progress->differ_by_op[w->op]++;
		fprintf(stderr, "seed %lu differs\n", progress->seed);
		print_graph(g);
	}
	memcpy(result, before, bytes);
done:
	free(saved);
	free(before);
}

/* Puts values in range into the indices that are read after @before, from @i on; returns where
 * those of the next part begin. */
static uint32_t set_indices(const struct op_graph *g, uint8_t *const *base,
			    const struct graph_needs *needs, uint32_t i, uint32_t before,
			    struct op_random *r)
{
	for (; i < needs->n_index && needs->index[i].before == before; i++) {
		const struct wire_tensor *w = &g->t[needs->index[i].tensor];

		set_index(w, base[w->buffer] + w->offset, needs->index[i].limit, r);
	}
	return i;
}

/* Part by part, with values for the indices in between: those of the graph are mostly out of range.
 */
static void compute(const struct op_graph *g, struct ggml_backend *backend, struct ggml_cgraph *all,
		    struct ggml_tensor *const *tensors, uint8_t *const *base,
		    const struct graph_needs *needs, struct op_random *r)
{
	struct ggml_cgraph part = *all;
	uint32_t i = 0, before = 0;
	int end = 0;

	do {
		part.nodes = all->nodes + end;
		i = set_indices(g, base, needs, i, before, r);
		before = i < needs->n_index ? needs->index[i].before : 0;
		part.n_nodes = 0;
		while (end < all->n_nodes && (!before || all->nodes[end] != tensors[before])) {
			part.n_nodes++;
			end++;
		}
		if (before && end == all->n_nodes)
			abort();
		if (host->api.ggml_backend_graph_compute(backend, &part) != 0)
			snprintf(progress->what, sizeof(progress->what), "failed");
	} while (end < all->n_nodes);
}

static void run_checked(struct op_graph *g, const struct graph_needs *needs, struct op_random *r)
{
	static struct ggml_backend *backend;
	static struct ggml_backend_buffer *dummy;
	const struct ggml_api *api = &host->api;
	struct ggml_tensor *t[OP_GRAPH_MAX_TENSORS];
	uint8_t *base[OP_GRAPH_MAX_TENSORS + 1];
	static const int64_t one = 1;
	struct ggml_init_params params = {.mem_size = 1 << 20, .no_alloc = true};
	struct ggml_context *context = api->ggml_init(params);
	struct ggml_cgraph *cgraph;
	bool right = op_random_below(r, 4) != 0;

	if (!backend) {
		struct ggml_backend_device *dev = NULL;
		void *f;
		void (*set_threads)(struct ggml_backend *, int);

		for (size_t i = 0; i < api->ggml_backend_dev_count() && !dev; i++)
			if (api->ggml_backend_dev_type(api->ggml_backend_dev_get(i)) ==
			    GGML_DEVICE_CPU)
				dev = api->ggml_backend_dev_get(i);
		backend = api->ggml_backend_dev_init(dev, NULL);
		dummy = api->ggml_backend_buft_alloc_buffer(api->ggml_backend_dev_buffer_type(dev),
							    64);
		f = api->ggml_backend_reg_get_proc_address(api->ggml_backend_dev_backend_reg(dev),
							   "ggml_backend_set_n_threads");
		memcpy(&set_threads, &f, sizeof(f));
		if (set_threads)
			set_threads(backend, n_threads);
	}
	for (uint32_t h = 1; h <= OP_GRAPH_MAX_TENSORS; h++)
		base[h] = place(g, h, right);
	fill(g, base, r);
	for (uint32_t i = 0; i < g->n; i++) {
		const struct wire_tensor *w = &g->t[i];

		t[i] = api->ggml_new_tensor(context, GGML_T_F32, 1, &one);
		t[i]->type = (int)w->type;
		t[i]->op = host->op_to_host[graph_idle(w) ? WIRE_T_NONE : w->op];
		if (t[i]->op < 0)
			goto done;
		for (int d = 0; d < WIRE_MAX_DIMS; d++) {
			t[i]->ne[d] = w->ne[d];
			t[i]->nb[d] = w->nb[d];
		}
		memcpy(t[i]->op_params, w->params, sizeof(t[i]->op_params));
		if (w->op == WIRE_T_UNARY)
			t[i]->op_params[0] = host->unary_to_host[w->params[0]];
		if (w->op == WIRE_T_GLU)
			t[i]->op_params[0] = host->glu_to_host[w->params[0]];
		if ((w->op == WIRE_T_UNARY || w->op == WIRE_T_GLU) && t[i]->op_params[0] < 0)
			goto done;
		for (int s = 0; s < WIRE_MAX_SRC; s++)
			t[i]->src[s] = w->src[s] && !graph_idle(w) ? t[w->src[s] - 1] : NULL;
		t[i]->view_src = w->view_src ? t[w->view_src - 1] : NULL;
		t[i]->view_offs = w->view_offset;
		t[i]->data = base[w->buffer] + w->offset;
		t[i]->buffer = dummy;
	}
	cgraph = api->ggml_new_graph_custom(context, OP_GRAPH_MAX_TENSORS + 1, false);
	for (uint32_t i = 0; i < g->n; i++)
		if ((g->t[i].flags & WIRE_TENSOR_NODE) && !graph_idle(&g->t[i]))
			api->ggml_build_forward_expand(cgraph, t[i]);
	for (uint32_t h = 1; h <= OP_GRAPH_MAX_TENSORS; h++)
		if (g->buffer_bytes[h]) {
			memset(right ? base[h] - 256 : base[h] + g->buffer_bytes[h], 0xa5, 256);
		}
	progress->ran++;
	progress->ran_by_op[g->t[g->n - 1].op]++;
	alarm((unsigned)bound_ms(SLOW_SECONDS * 1000) / 1000);
	if (cutting)
		set_indices(g, base, needs, 0, 0, r);
	if (cutting)
		compare_pieces(g, backend, cgraph, base[g->t[g->n - 1].buffer], r);
	progress->took_us = INT64_MAX;
	for (int i = 0; i < (r->scale ? 3 : 1); i++) { /* the least of a few is the graph's own */
		int64_t started = cpu_us();

		compute(g, backend, cgraph, t, base, needs, r);
		if (cpu_us() - started < progress->took_us)
			progress->took_us = cpu_us() - started;
	}
	alarm(0);
	for (uint32_t h = 1; h <= OP_GRAPH_MAX_TENSORS; h++)
		for (int i = 0; i < 256 && g->buffer_bytes[h]; i++)
			if ((right ? base[h] - 256 : base[h] + g->buffer_bytes[h])[i] != 0xa5) {
				fprintf(stderr, "buffer %u: byte %d beside it was written\n", h, i);
				abort();
			}
done:
	api->ggml_free(context);
}

static void one_graph(uint64_t seed, bool verbose)
{
	struct graph_index index[OP_GRAPH_MAX_TENSORS];
	struct graph_needs needs = {.index = index, .max_index = OP_GRAPH_MAX_TENSORS};
	struct graph_fault fault;
	struct op_graph g;
	struct op_random r;
	struct graph_env env;

	if (!make_graph(seed, &g, &r))
		return;
	progress->made++;
	env = op_shapes_env(&g);
	if (verbose)
		print_graph(&g);
	if (!graph_check(&env, g.t, g.n, &needs, &fault)) {
		if (verbose)
			printf("refused: tensor %u: %s\n", fault.tensor + 1, fault.why);
		return;
	}
	describe(&g);
	run_checked(&g, &needs, &r);
}

/* ---- how long ---- */

enum {
	TIMED_MIN_US = 10000, /* predicted; --said sets another */
	TIMED_SPAN = 6,       /* times as much at most */
	TIMED_TRIES = 4000,   /* to find a graph of that size */
	SAID_SLOWNESS = 2,    /* what op_cost.c says is for */
};

static double timed_min_us = TIMED_MIN_US;

struct timed {
	double worst, best, slowness;
	unsigned n;
	char what[256];
};

/* One large graph of @shape; false: none was found. */
static bool time_one(unsigned shape, struct op_random *r, struct timed *out)
{
	struct graph_index index[OP_GRAPH_MAX_TENSORS];
	struct graph_fault fault;
	struct op_graph g;

	for (int i = 0; i < TIMED_TRIES; i++) {
		struct graph_needs needs = {.index = index, .max_index = OP_GRAPH_MAX_TENSORS};
		struct graph_env env;
		double ratio, predicted_us, slowness;

		r->scale = 2u << op_random_below(r, 14);
		op_shapes_make(&g, shape, r);
		if (!op_shapes_fit(&g, arena_bytes / 2))
			continue;
		env = op_shapes_env(&g);
		if (!graph_check(&env, g.t, g.n, &needs, &fault))
			continue;
		predicted_us = (double)needs.time_ns / 1000;
		if (predicted_us < timed_min_us || predicted_us > timed_min_us * TIMED_SPAN)
			continue;
		describe(&g);
		slowness = core_probe_slowness();
		run_checked(&g, &needs, r);
		ratio = (double)progress->took_us / predicted_us;
		if (slowness > SAID_SLOWNESS)
			ratio *= SAID_SLOWNESS / slowness;
		if (slowness > out->slowness)
			out->slowness = slowness;
		if (ratio > out->worst) {
			const struct wire_tensor *d = &g.t[g.n - 1], *x = &g.t[0];

			out->worst = ratio;
			snprintf(out->what, sizeof(out->what),
				 "%.1f ms, type %u ne %ld %ld %ld %ld from type %u %ld %ld %ld %ld "
				 "params %d %d %d",
				 (double)progress->took_us / 1000, d->type, d->ne[0], d->ne[1],
				 d->ne[2], d->ne[3], x->type, x->ne[0], x->ne[1], x->ne[2],
				 x->ne[3], d->params[0], d->params[1], d->params[2]);
		}
		if (!out->n || ratio < out->best)
			out->best = ratio;
		out->n++;
		return true;
	}
	return false;
}

static void too_slow(int sig)
{
	(void)sig;
	dprintf(STDOUT_FILENO, "more than %d s: %s\n", SLOW_SECONDS, progress->what);
	_exit(1);
}

static int time_all(uint64_t seed, time_t seconds, const char *only)
{
	static struct timed timed[WIRE_NUM_TENSOR_OPS];
	struct op_random r = {.state = mix(seed)};
	int64_t end = now_us() + seconds * 1000000;

	signal(SIGALRM, too_slow);
	while (now_us() < end)
		for (unsigned i = 0; i < op_shapes_count() && now_us() < end; i++)
			if (!only || !strcmp(only, wire_tensor_op_str[op_shapes_op(i)]))
				time_one(i, &r, &timed[op_shapes_op(i)]);
	for (int i = 0; i < WIRE_NUM_TENSOR_OPS; i++)
		if (timed[i].n)
			printf("%-20s %3u runs, %.3f to %.3f of what was said, core up to %.1f "
			       "times as slow: %s\n",
			       wire_tensor_op_str[i], timed[i].n, timed[i].best, timed[i].worst,
			       timed[i].slowness, timed[i].what);
	return 0;
}

/* ---- children ---- */

static int run_child(uint64_t seed, uint64_t end)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		for (; seed < end; seed++) {
			progress->seed = seed;
			one_graph(seed, false);
		}
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static bool setup(const char *dir)
{
	struct pil_err err = {0};

	setenv("OMP_WAIT_POLICY", "passive", 1); /* several threads on few cores */
	if (ggml_host_load(&host, dir, &err)) {
		fprintf(stderr, "run_graph: %s\n", err.msg);
		return false;
	}
	for (int i = 0; i < WIRE_MAX_TYPES; i++) {
		if (host->types.block[i] != op_shapes_types.block[i] ||
		    host->types.bytes[i] != op_shapes_types.bytes[i])
			printf("type %d: %u/%u here, %u/%u there\n", i, op_shapes_types.block[i],
			       op_shapes_types.bytes[i], host->types.block[i],
			       host->types.bytes[i]);
	}
	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	for (int i = 0; i <= OP_GRAPH_MAX_TENSORS; i++)
		arenas[i] = guarded(arena_bytes, PAGE);
	return progress != MAP_FAILED;
}

static void report(const char *version, unsigned crashes)
{
	unsigned ops = 0;

	for (int i = 0; i < WIRE_NUM_TENSOR_OPS; i++) {
		ops += progress->ran_by_op[i] > 0;
		if (graph_check_knows((uint32_t)i) && progress->ran_by_op[i] < 20)
			printf("few of %s: %lu\n", wire_tensor_op_str[i], progress->ran_by_op[i]);
	}
	for (int i = 0; i < WIRE_NUM_TENSOR_OPS && cutting; i++)
		if (progress->cut_by_op[i])
			printf("cut %s: %lu, %lu differ\n", wire_tensor_op_str[i],
			       progress->cut_by_op[i], progress->differ_by_op[i]);
	printf("ggml %s: %lu graphs made, %lu run, %u operations, %u crashes\n", version,
	       progress->made, progress->ran, ops, crashes);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"ggml-dir", required_argument, NULL, 'g'},
		{"seconds", required_argument, NULL, 's'},
		{"seed", required_argument, NULL, 'r'},
		{"one", required_argument, NULL, 'o'},
		{"threads", required_argument, NULL, 't'},
		{"time", no_argument, NULL, 'T'},
		{"only", required_argument, NULL, 'O'},
		{"said", required_argument, NULL, 'S'},
		{"cut", no_argument, NULL, 'C'},
		{0},
	};
	const char *dir = NULL, *only = NULL;
	uint64_t seed = 1, one = 0;
	time_t seconds = 10, end;
	bool timing = false;
	unsigned crashes = 0;
	int c;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'g')
			dir = optarg;
		else if (c == 's')
			seconds = strtol(optarg, NULL, 10);
		else if (c == 'r')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'o')
			one = strtoull(optarg, NULL, 0);
		else if (c == 't')
			n_threads = (int)strtol(optarg, NULL, 10);
		else if (c == 'T')
			timing = true;
		else if (c == 'O')
			only = optarg;
		else if (c == 'S')
			timed_min_us = strtod(optarg, NULL) * 1000;
		else if (c == 'C')
			cutting = true;
		else
			return 2;
	}
	if (timing) {
		n_threads = 1;
		arena_bytes = TIMED_ARENA;
	}
	if (!setup(dir))
		return 77;
	if (one) {
		one_graph(one, true);
		return 0;
	}
	if (timing)
		return time_all(seed, seconds, only);
	end = time(NULL) + seconds;
	while (time(NULL) < end && crashes < 40) {
		uint64_t stop = seed + FIRST_CHILD_GRAPHS;
		int status = run_child(seed, stop);

		seed = stop;
		if (WIFSIGNALED(status) || WEXITSTATUS(status)) {
			seed = progress->seed + 1;
			crashes++;
			printf("seed %lu: signal %d: %s\n", progress->seed,
			       WIFSIGNALED(status) ? WTERMSIG(status) : 0, progress->what);
		}
	}
	report(host->version, crashes);
	return crashes > 0;
}
