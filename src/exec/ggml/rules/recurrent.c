/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of recurrent layers, which keep a state from token to token. */
#include "exec/ggml/rules/rules.h"

const char *rule_ssm_conv(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *c = a->src[1], *d = a->dst;

	NEED(is_f32(x) && is_f32(c) && is_f32(d), WRONG_TYPE);
	NEED(x->ne[3] == 1 && c->ne[1] == x->ne[1] && c->ne[2] == 1 && c->ne[3] == 1 &&
		     shape_is(d, x->ne[1], x->ne[0] - c->ne[0] + 1, x->ne[2], 1),
	     WRONG_SHAPE);
	NEED(packed(a, x) && tight(x, 1) && packed(a, c) && tight(c, 1) && packed(a, d),
	     WRONG_LAYOUT);
	return NULL;
}

const char *rule_ssm_scan(const struct op_args *a)
{
	const struct wire_tensor *s = a->src[0], *x = a->src[1], *dt = a->src[2], *A = a->src[3];
	const struct wire_tensor *b = a->src[4], *c = a->src[5], *ids = a->src[6], *d = a->dst;
	int64_t snapshots = d->params[0];

	for (int i = 0; i < 6; i++)
		NEED(is_f32(a->src[i]) && packed(a, a->src[i]), WRONG_TYPE);
	NEED(ids->type == OP_I32 && is_f32(d), WRONG_TYPE);
	NEED(in_range(snapshots, 1, INT32_MAX), WRONG_PARAM);
	NEED(s->ne[1] == x->ne[0] && s->ne[2] == x->ne[1] &&
		     shape_is(dt, x->ne[1], x->ne[2], x->ne[3], 1) &&
		     shape_is(A, A->ne[0], x->ne[1], 1, 1) &&
		     (A->ne[0] == 1 || (A->ne[0] == s->ne[0] && snapshots == 1)) &&
		     shape_is(b, s->ne[0], b->ne[1], x->ne[2], x->ne[3]) && same_shape(b, c) &&
		     divides(b->ne[1], x->ne[1]) && shape_is(ids, x->ne[3], 1, 1, 1),
	     WRONG_SHAPE);
	NEED((tensor_elems(d) - tensor_elems(x)) / snapshots ==
			     s->ne[0] * s->ne[1] * s->ne[2] * ids->ne[0] &&
		     (tensor_elems(d) - tensor_elems(x)) % snapshots == 0,
	     WRONG_SHAPE);
	NEED(strict(a, s) && dense(a, dt) && dense(a, A) && tight(x, 1) && tight(b, 1) &&
		     tight(c, 1) && packed(a, ids) && dense(a, d),
	     WRONG_LAYOUT);
	return NULL;
}

/* RWKV_WKV6, GATED_LINEAR_ATTN, RWKV_WKV7: operands [S, H, T], a state [S * S * H, n], and a result
 * that holds T rows of output, then the new state. */
const char *rule_recurrent(const struct op_args *a)
{
	int n_src = a->dst->op == WIRE_T_RWKV_WKV7 ? 7 : a->dst->op == WIRE_T_RWKV_WKV6 ? 6 : 5;
	const struct wire_tensor *x = a->src[1], *state = a->src[n_src - 1], *d = a->dst;
	int64_t s = x->ne[0], h = x->ne[1], t = x->ne[2], n = state->ne[1];

	for (int i = 0; i < n_src; i++) {
		bool bonus = a->dst->op == WIRE_T_RWKV_WKV6 && i == 3; /* one row for all tokens */

		NEED(is_f32(a->src[i]), WRONG_TYPE);
		NEED(dense(a, a->src[i]), WRONG_LAYOUT);
		NEED(i == n_src - 1 || (bonus ? tensor_elems(a->src[i]) == s * h
					      : shape_is(a->src[i], s, h, t, 1)),
		     WRONG_SHAPE);
	}
	NEED(is_f32(d) && dense(a, d), WRONG_TYPE);
	NEED(s <= MAX_STATE && (d->op != WIRE_T_RWKV_WKV7 || s % WKV7_STEP == 0), WRONG_SHAPE);
	NEED(divides(n, t) && divides(s * s * h, tensor_elems(state)) &&
		     tensor_elems(state) / (s * s * h) == n && shape_is(d, s * h, t + s * n, 1, 1),
	     WRONG_SHAPE);
	return NULL;
}

const char *rule_solve_tri(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *d = a->dst;

	NEED(is_f32(x) && is_f32(y) && is_f32(d), WRONG_TYPE);
	NEED(x->ne[0] == x->ne[1] && y->ne[1] == x->ne[1] && y->ne[2] == x->ne[2] &&
		     y->ne[3] == x->ne[3] && same_shape(y, d),
	     WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, y) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

const char *rule_gated_delta_net(const struct op_args *a)
{
	const struct wire_tensor *q = a->src[0], *k = a->src[1], *v = a->src[2], *g = a->src[3];
	const struct wire_tensor *beta = a->src[4], *state = a->src[5], *d = a->dst;
	int64_t s = v->ne[0], h = v->ne[1], t = v->ne[2], n = v->ne[3], snapshots = d->params[0];

	for (int i = 0; i < 6; i++)
		NEED(is_f32(a->src[i]) && packed(a, a->src[i]), WRONG_TYPE);
	NEED(is_f32(d), WRONG_TYPE);
	NEED(in_range(snapshots, 1, 1 << 20), WRONG_PARAM);
	NEED(s <= MAX_STATE, TOO_LARGE);
	NEED(q->ne[0] == s && k->ne[0] == s && q->ne[2] == t && k->ne[2] == t && q->ne[1] > 0 &&
		     k->ne[1] > 0 && divides(q->ne[3], n) && divides(k->ne[3], n) &&
		     (g->ne[0] == 1 || g->ne[0] == s) && shape_is(g, g->ne[0], h, t, n) &&
		     shape_is(beta, 1, h, t, n) && shape_is(state, s, s, h, n) &&
		     shape_is(d, s * h, t * n + snapshots * s * n, 1, 1),
	     WRONG_SHAPE);
	NEED(dense(a, g) && dense(a, beta) && dense(a, state) && dense(a, d), WRONG_LAYOUT);
	return NULL;
}
