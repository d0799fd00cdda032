/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of copies, of rows chosen by an index, and of diagonals. */
#include "exec/ggml/rules/rules.h"

#include <string.h>

static const char *check_copy_same_type(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	/* Of quantized rows the kernel counts bytes wrongly where only the result is dense. */
	if (a->env->types->block[d->type] > 1 && !same_shape(x, d))
		NEED(loosely_dense(a, x) || !loosely_dense(a, d), WRONG_LAYOUT);
	return NULL;
}

const char *rule_copy(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *d = a->dst;
	bool i32_f32 = (x->type == OP_I32 && is_f32(d)) || (is_f32(x) && d->type == OP_I32);

	NEED(tensor_elems(x) == tensor_elems(d), WRONG_SHAPE);
	if (y)
		NEED(y->type == d->type && same_shape(y, d) && !memcmp(y->nb, d->nb, sizeof(y->nb)),
		     WRONG_SHAPE);
	if (x->type == d->type)
		return check_copy_same_type(a);
	NEED(d->op == WIRE_T_CPY && y, WRONG_TYPE);
	if ((is_type(x, FLOATS) && is_type(d, FLOATS)) || i32_f32)
		return NULL;
	if (is_type(x, FLOATS)) {
		NEED(is_type(d, WRITABLE_QUANTS), WRONG_TYPE);
		/* Scratch memory is sized by the rows of the result. */
		NEED(divides(a->env->types->block[d->type], x->ne[0]) && x->ne[0] <= d->ne[0] &&
			     x->ne[0] <= MAX_ROW_SCRATCH && d->ne[0] <= MAX_ROW_SCRATCH,
		     WRONG_SHAPE);
		NEED(packed(a, x) && dense(a, d), WRONG_LAYOUT);
		return NULL;
	}
	NEED(is_type(x, QUANTS) && is_f32(d), WRONG_TYPE);
	NEED(packed(a, d), WRONG_LAYOUT);
	NEED(divides(a->env->types->block[x->type], d->ne[0]) || dense(a, d), WRONG_LAYOUT);
	return NULL;
}

const char *rule_get_rows(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *i = a->src[1], *d = a->dst;

	NEED(i->type == OP_I32, WRONG_TYPE);
	NEED(x->type == OP_I32 ? d->type == OP_I32 : is_type(x, FLOATS | QUANTS) && is_f32(d),
	     WRONG_TYPE);
	NEED(x->ne[2] == i->ne[1] && x->ne[3] == i->ne[2] && i->ne[3] == 1 &&
		     shape_is(d, x->ne[0], i->ne[0], i->ne[1], i->ne[2]),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, d), WRONG_LAYOUT);
	return NULL;
}

/* Rows beyond those there is an index for are not read. */
const char *rule_get_rows_back(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *i = a->src[1], *d = a->dst;

	NEED((is_f32(x) || x->type == OP_F16) && i->type == OP_I32 && is_f32(d), WRONG_TYPE);
	NEED(d->ne[0] == x->ne[0] && d->ne[2] == 1 && d->ne[3] == 1 &&
		     shape_is(i, i->ne[0], 1, 1, 1) && i->ne[0] <= x->ne[1] && x->ne[2] == 1 &&
		     x->ne[3] == 1,
	     WRONG_SHAPE);
	NEED(packed(a, x) && dense(a, i) && dense(a, d), WRONG_LAYOUT);
	return NULL;
}

/* A program may set no rows at all. */
const char *rule_set_rows(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *i = a->src[1], *d = a->dst;

	NEED((is_f32(x) || x->type == OP_F16) && is_type(d, FLOATS | WRITABLE_QUANTS) &&
		     (i->type == OP_I32 || i->type == OP_I64),
	     WRONG_TYPE);
	NEED(d->ne[0] == x->ne[0] && d->ne[2] == x->ne[2] && d->ne[3] == x->ne[3] &&
		     i->ne[0] == x->ne[1] && divides(i->ne[1], x->ne[2]) &&
		     divides(i->ne[2], x->ne[3]) && i->ne[3] == 1,
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, d), WRONG_LAYOUT);
	return NULL;
}

const char *rule_diag(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0];

	NEED(is_f32(x) && is_f32(a->dst), WRONG_TYPE);
	NEED(x->ne[1] == 1 && shape_is(a->dst, x->ne[0], x->ne[0], x->ne[2], x->ne[3]),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_diag_mask(const struct op_args *a)
{
	const char *why = rule_dense_f32(a);

	NEED(!why, why);
	NEED(in_range(a->dst->params[0], 0, 1 << 30), WRONG_PARAM);
	NEED(strict(a, a->dst), WRONG_LAYOUT);
	return NULL;
}
