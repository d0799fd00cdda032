/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of hyper-connections: how streams of a model are mixed. */
#include "exec/ggml/rules/rules.h"

const char *rule_hc_comb(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0];

	NEED(is_f32(x) && is_f32(a->src[1]) && is_f32(a->src[2]) && is_f32(a->dst), WRONG_TYPE);
	NEED(shape_is(x, 24, x->ne[1], 1, 1) && a->src[1]->ne[0] >= 3 && a->src[2]->ne[0] == 24 &&
		     shape_is(a->dst, 4, 4, x->ne[1], 1),
	     WRONG_SHAPE);
	NEED(in_range(a->dst->params[1], 1, MAX_ITERATIONS), WRONG_PARAM);
	return NULL;
}

const char *rule_hc_pre(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *w = a->src[1];

	NEED(is_f32(x) && is_f32(w) && is_f32(a->dst), WRONG_TYPE);
	NEED(x->ne[3] == 1 && shape_is(a->dst, x->ne[0], x->ne[2], 1, 1) &&
		     (a->dst->params[1] ? same_shape(w, x) : shape_is(w, x->ne[1], x->ne[2], 1, 1)),
	     WRONG_SHAPE);
	return NULL;
}

const char *rule_hc_post(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *r = a->src[1], *p = a->src[2], *c = a->src[3];

	NEED(is_f32(x) && is_f32(r) && is_f32(p) && is_f32(a->dst) && (!c || is_f32(c)),
	     WRONG_TYPE);
	NEED(shape_is(r, x->ne[0], r->ne[1], x->ne[1], 1) &&
		     shape_is(x, x->ne[0], x->ne[1], 1, 1) &&
		     shape_is(p, r->ne[1], x->ne[1], 1, 1) && same_shape(r, a->dst) &&
		     (!c || shape_is(c, r->ne[1], r->ne[1], x->ne[1], 1)),
	     WRONG_SHAPE);
	return NULL;
}
