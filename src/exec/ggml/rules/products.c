/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of matrix products. */
#include "exec/ggml/rules/rules.h"

const char *rule_mul_mat(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *d = a->dst;
	bool hadamard = d->params[1] == 1; /* src[0] is known to be such a matrix */
	bool alike = y->type == x->type && is_type(x, FLOATS);
	bool widened = is_f32(x) && y->type == (hadamard ? OP_F16 : OP_BF16);

	NEED(is_type(x, FLOATS | QUANTS) && (is_f32(y) || alike || widened) && is_f32(d),
	     WRONG_TYPE);
	NEED(x->ne[0] == y->ne[0] && shape_is(d, x->ne[1], y->ne[1], y->ne[2], y->ne[3]) &&
		     divides(x->ne[2], y->ne[2]) && divides(x->ne[3], y->ne[3]),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, y) && packed(a, d) && rising(d), WRONG_LAYOUT);
	NEED(fits_dense(a, y), TOO_LARGE);
	NEED(in_range(d->params[1], 0, 1), WRONG_PARAM);
	if (hadamard) {
		NEED(is_f32(x), WRONG_TYPE);
		NEED(x->ne[0] == x->ne[1] && (x->ne[0] & (x->ne[0] - 1)) == 0, WRONG_SHAPE);
	}
	return NULL;
}

const char *rule_mul_mat_id(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *ids = a->src[2], *d = a->dst;

	NEED(is_type(x, FLOATS | QUANTS) && is_f32(y) && is_f32(d) && ids->type == OP_I32,
	     WRONG_TYPE);
	NEED(x->ne[0] == y->ne[0] && x->ne[3] == 1 && y->ne[3] == 1 && ids->ne[2] == 1 &&
		     ids->ne[3] == 1 && ids->ne[1] == y->ne[2] && divides(y->ne[1], ids->ne[0]) &&
		     shape_is(d, x->ne[1], ids->ne[0], y->ne[2], 1),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, y) && packed(a, d) && rising(d), WRONG_LAYOUT);
	NEED(fits_dense(a, y) && x->ne[2] <= MAX_EXPERTS &&
		     tensor_elems(ids) <= MAX_EXPERT_SLOTS / x->ne[2],
	     TOO_LARGE);
	return NULL;
}

const char *rule_out_prod(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *d = a->dst;

	NEED(is_type(x, TYPE_BIT(OP_F32) | TYPE_BIT(OP_F16) | QUANTS) && is_f32(y) && is_f32(d),
	     WRONG_TYPE);
	NEED(x->ne[1] == y->ne[1] && shape_is(d, x->ne[0], y->ne[0], y->ne[2], y->ne[3]) &&
		     divides(x->ne[2], d->ne[2]) && divides(x->ne[3], d->ne[3]),
	     WRONG_SHAPE);
	NEED(is_f32(x) || (x->ne[2] == d->ne[2] && x->ne[3] == d->ne[3]), WRONG_SHAPE);
	NEED(packed(a, x) && dense(a, d), WRONG_LAYOUT);
	return NULL;
}
