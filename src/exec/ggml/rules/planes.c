/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of planes that are scaled, padded, cut, sorted or filled. */
#include "exec/ggml/rules/rules.h"

const char *rule_upscale(const struct op_args *a)
{
	NEED(is_f32(a->src[0]) && is_f32(a->dst), WRONG_TYPE);
	NEED(in_range(a->dst->params[0] & 0xff, 0, 2) && in_range(a->dst->params[0], 0, 0x3ff),
	     WRONG_PARAM);
	for (int i = 0; i < WIRE_MAX_DIMS; i++) /* beyond, source positions round out of range */
		NEED(a->dst->ne[i] <= MAX_PLANE && a->src[0]->ne[i] <= MAX_PLANE, WRONG_SHAPE);
	return NULL;
}

/* [left0 right0 left1 right1 ... circular] */
const char *rule_pad(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED(is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(params_in(a, 0, 8, 0, INT32_MAX), WRONG_PARAM);
	for (int i = 0; i < WIRE_MAX_DIMS; i++) {
		NEED(d->ne[i] == x->ne[i] + d->params[2 * i] + d->params[2 * i + 1], WRONG_SHAPE);
		NEED(!d->params[8] || d->params[2 * i] <= x->ne[i], WRONG_PARAM);
	}
	NEED(dense(a, d), WRONG_LAYOUT);
	return NULL;
}

const char *rule_pad_reflect_1d(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED(is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(params_in(a, 0, 2, 0, x->ne[0] - 1), WRONG_PARAM);
	NEED(shape_is(d, x->ne[0] + d->params[0] + d->params[1], x->ne[1], x->ne[2], x->ne[3]),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, d), WRONG_LAYOUT);
	return NULL;
}

const char *rule_roll(const struct op_args *a)
{
	const char *why = rule_rows_f32(a);

	NEED(!why, why);
	for (int i = 0; i < WIRE_MAX_DIMS; i++)
		NEED(in_range(a->dst->params[i], 1 - a->dst->ne[i], a->dst->ne[i] - 1),
		     WRONG_PARAM);
	return NULL;
}

const char *rule_arange(const struct op_args *a)
{
	float n = (float_param(a, 1) - float_param(a, 0)) / float_param(a, 2);
	int64_t steps;

	NEED(is_f32(a->dst), WRONG_TYPE);
	NEED(n > 0.0f && n <= (float)(1 << 24), WRONG_PARAM); /* not a NaN either */
	steps = (int64_t)n;
	steps += (float)steps < n;
	NEED(tensor_elems(a->dst) == steps, WRONG_SHAPE);
	NEED(dense(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_timestep_embedding(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED(is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(in_range(d->params[0], 1, d->ne[0]), WRONG_PARAM);
	NEED(x->ne[1] == 1 && x->ne[2] == 1 && x->ne[3] == 1 &&
		     shape_is(d, d->ne[0], x->ne[0], 1, 1),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, d), WRONG_LAYOUT);
	return NULL;
}

/* Sorting goes wild when the data changes under it. */
static bool apart(const struct op_args *a, const struct wire_tensor *x, const struct wire_tensor *y)
{
	uint64_t nx, ny;

	return a->query || x->buffer != y->buffer ||
	       (tensor_extent(a->env->types, x, &nx) && tensor_extent(a->env->types, y, &ny) &&
		(x->offset + nx <= y->offset || y->offset + ny <= x->offset));
}

const char *rule_sort(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED(is_f32(x) && d->type == OP_I32, WRONG_TYPE);
	NEED(d->ne[1] == x->ne[1] && d->ne[2] == x->ne[2] && d->ne[3] == x->ne[3], WRONG_SHAPE);
	if (d->op == WIRE_T_ARGSORT) {
		NEED(d->ne[0] == x->ne[0], WRONG_SHAPE);
		NEED(in_range(d->params[0], 0, 1), WRONG_PARAM);
	} else {
		NEED(in_range(d->ne[0], 1, x->ne[0]), WRONG_SHAPE);
	}
	NEED(packed(a, x) && packed(a, d) && flat_rows(x) && flat_rows(d), WRONG_LAYOUT);
	NEED(apart(a, x, d), "a sort into its own source");
	return NULL;
}

const char *rule_tri(const struct op_args *a)
{
	const char *why = rule_rows_f32(a);

	NEED(!why, why);
	NEED(dense(a, a->src[0]), WRONG_LAYOUT);
	NEED(in_range(a->dst->params[0], 0, 3), WRONG_PARAM);
	return NULL;
}

const char *rule_fill(const struct op_args *a)
{
	NEED((is_f32(a->dst) || a->dst->type == OP_F16) && a->src[0]->type == a->dst->type,
	     WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_win_part(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;
	int64_t nx = d->params[0], ny = d->params[1], w = d->params[2];

	NEED(is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(in_range(w, 1, MAX_CONV_PARAM) && in_range(nx, 1, MAX_CONV_PARAM / 4) &&
		     in_range(ny, 1, MAX_CONV_PARAM / 4),
	     WRONG_PARAM);
	NEED(x->ne[3] == 1 && shape_is(d, x->ne[0], w, w, nx * ny), WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

const char *rule_win_unpart(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;
	int64_t w = d->params[0], nx, ny;

	NEED(is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(in_range(w, 1, MAX_CONV_PARAM), WRONG_PARAM);
	nx = (d->ne[1] + w - 1) / w;
	ny = (d->ne[2] + w - 1) / w;
	NEED(nx <= INT32_MAX && d->ne[3] == 1 && shape_is(x, d->ne[0], w, w, nx * ny), WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

const char *rule_get_rel_pos(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED(x->type == OP_F16 && d->type == OP_F16, WRONG_TYPE);
	NEED(x->ne[1] == d->ne[1] + d->ne[2] - 1 && x->ne[2] == 1 && x->ne[3] == 1 &&
		     d->ne[0] == x->ne[0] && d->ne[3] == 1,
	     WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

const char *rule_add_rel_pos(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *w = a->src[1], *h = a->src[2], *d = a->dst;

	NEED(is_f32(x) && is_f32(w) && is_f32(h) && is_f32(d), WRONG_TYPE);
	NEED(same_shape(x, d) && same_shape(w, h) && x->ne[3] == 1 && w->ne[3] == x->ne[2] &&
		     w->ne[0] * w->ne[0] == x->ne[0] && w->ne[1] * w->ne[2] == x->ne[1],
	     WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, w) && strict(a, h) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}
