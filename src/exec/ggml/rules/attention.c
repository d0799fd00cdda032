/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of soft max, rotary positions and attention. */
#include "exec/ggml/rules/rules.h"

const char *rule_soft_max(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *mask = a->src[1], *sinks = a->src[2];
	const char *why = rule_rows_f32(a);

	NEED(!why, why);
	if (mask) {
		NEED(is_f32(mask) || mask->type == OP_F16, WRONG_TYPE);
		NEED(mask->ne[0] == x->ne[0] && mask->ne[1] >= x->ne[1] &&
			     divides(mask->ne[2], x->ne[2]) && divides(mask->ne[3], x->ne[3]),
		     WRONG_SHAPE);
		NEED(packed(a, mask), WRONG_LAYOUT);
	}
	if (sinks) {
		NEED(is_f32(sinks), WRONG_TYPE);
		NEED(shape_is(sinks, x->ne[2], 1, 1, 1), WRONG_SHAPE);
		NEED(packed(a, sinks), WRONG_LAYOUT);
	}
	return NULL;
}

const char *rule_soft_max_back(const struct op_args *a)
{
	const char *why = rule_dense_f32(a);

	NEED(!why, why);
	NEED(is_f32(a->src[1]), WRONG_TYPE);
	NEED(same_shape(a->src[1], a->dst), WRONG_SHAPE);
	NEED(dense(a, a->src[1]), WRONG_LAYOUT);
	NEED(float_param(a, 1) == 0.0f, WRONG_PARAM);
	return NULL;
}

enum rope_mode {
	ROPE_NORMAL = 0,
	ROPE_NEOX = 2,
	ROPE_MROPE = 8,
	ROPE_VISION = 24,
	ROPE_IMROPE = 40
};

static const char *check_rope_params(const struct op_args *a)
{
	const int32_t *p = a->dst->params;
	int32_t n_dims = p[1], mode = p[2], offset = p[15];
	int64_t n = a->dst->ne[0], sections = 0;

	NEED(mode == ROPE_NORMAL || mode == ROPE_NEOX || mode == ROPE_MROPE ||
		     mode == ROPE_VISION || mode == ROPE_IMROPE,
	     WRONG_PARAM);
	NEED(n % 2 == 0 && n_dims % 2 == 0 && in_range(n_dims, 2, n), WRONG_PARAM);
	NEED(offset % 2 == 0 && in_range(offset, 0, n - n_dims), WRONG_PARAM);
	if (mode & ROPE_MROPE) {
		NEED(params_in(a, 11, 4, 0, n), WRONG_PARAM);
		for (int i = 11; i < 15; i++)
			sections += p[i];
		NEED(sections <= n && sections > p[14], WRONG_PARAM);
	}
	if (mode == ROPE_VISION)
		NEED(n_dims == n / 2 && offset == 0, WRONG_PARAM);
	return NULL;
}

/* The kernel reads a factor per pair of the whole row, also of pairs it does not turn. */
static bool factors_readable(const struct op_args *a)
{
	const struct wire_tensor *f = a->src[2];
	uint64_t want = (uint64_t)(a->dst->ne[0] / 2) * 4, bytes;

	if (a->query || (uint64_t)f->ne[0] * 4 >= want)
		return true;
	return a->env->buffer_size(a->env->ctx, f->buffer, &bytes) && f->offset <= bytes &&
	       want <= bytes - f->offset;
}

const char *rule_rope(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *pos = a->src[1], *f = a->src[2];
	const char *why = check_rope_params(a);

	NEED(!why, why);
	NEED((is_f32(x) || x->type == OP_F16) && a->dst->type == x->type && pos->type == OP_I32,
	     WRONG_TYPE);
	NEED(same_shape(x, a->dst), WRONG_SHAPE);
	NEED(shape_is(pos, a->dst->params[2] & ROPE_MROPE ? 4 * x->ne[2] : x->ne[2], 1, 1, 1),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, a->dst) && packed(a, pos), WRONG_LAYOUT);
	if (f) {
		NEED(is_f32(f), WRONG_TYPE);
		NEED(f->ne[0] >= a->dst->params[1] / 2 && packed(a, f) && factors_readable(a),
		     WRONG_SHAPE);
	}
	return NULL;
}

static const char *check_flash_extras(const struct op_args *a)
{
	const struct wire_tensor *q = a->src[0], *k = a->src[1], *mask = a->src[3],
				 *sinks = a->src[4];

	if (mask) {
		NEED(mask->type == OP_F16, WRONG_TYPE);
		NEED(mask->ne[0] >= k->ne[1] && mask->ne[1] >= q->ne[1] &&
			     divides(mask->ne[2], q->ne[2]) && divides(mask->ne[3], q->ne[3]),
		     WRONG_SHAPE);
		NEED(packed(a, mask), WRONG_LAYOUT);
	}
	if (sinks) {
		NEED(is_f32(sinks), WRONG_TYPE);
		NEED(shape_is(sinks, q->ne[2], 1, 1, 1), WRONG_SHAPE);
		NEED(packed(a, sinks), WRONG_LAYOUT);
	}
	return NULL;
}

const char *rule_flash_attn(const struct op_args *a)
{
	const struct wire_tensor *q = a->src[0], *k = a->src[1], *v = a->src[2], *d = a->dst;

	NEED(is_f32(q) && is_f32(d) && is_type(k, FLOATS | QUANTS) && is_type(v, FLOATS | QUANTS),
	     WRONG_TYPE);
	NEED(k->ne[0] == q->ne[0] && v->ne[1] == k->ne[1] && divides(k->ne[2], q->ne[2]) &&
		     divides(v->ne[2], q->ne[2]) && divides(k->ne[3], q->ne[3]) &&
		     divides(v->ne[3], q->ne[3]) &&
		     shape_is(d, v->ne[0], q->ne[2], q->ne[1], q->ne[3]),
	     WRONG_SHAPE);
	NEED(packed(a, q) && packed(a, k) && packed(a, v) && strict(a, d), WRONG_LAYOUT);
	NEED(k->ne[0] <= MAX_HEAD && v->ne[0] <= MAX_HEAD, TOO_LARGE);
	NEED(d->params[3] == 0 || d->params[3] == 10, WRONG_PARAM); /* precision: default, F32 */
	return check_flash_extras(a);
}

const char *rule_lightning_indexer(const struct op_args *a)
{
	const struct wire_tensor *q = a->src[0], *k = a->src[1], *w = a->src[2], *m = a->src[3];
	int64_t kv = k->ne[2], tokens = q->ne[2], streams = q->ne[3];

	NEED(is_f32(q) && is_type(k, FLOATS | QUANTS) && is_f32(w) && m->type == OP_F16 &&
		     is_f32(a->dst),
	     WRONG_TYPE);
	NEED(shape_is(k, q->ne[0], 1, kv, streams) && shape_is(w, q->ne[1], tokens, 1, streams) &&
		     shape_is(m, kv, tokens, 1, m->ne[3]) && divides(m->ne[3], streams) &&
		     shape_is(a->dst, kv, tokens, 1, streams),
	     WRONG_SHAPE);
	for (int i = 0; i < 4; i++)
		NEED(packed(a, a->src[i]), WRONG_LAYOUT);
	NEED(packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}
