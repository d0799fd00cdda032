/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of the operations that go element by element: functions, sums and products of two. */
#include "exec/ggml/rules/rules.h"

/* Element by element from one tensor of any strides to one of the same shape. */
const char *rule_unary_f32(const struct op_args *a)
{
	NEED(is_f32(a->src[0]) && is_f32(a->dst), WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst), WRONG_SHAPE);
	return NULL;
}

const char *rule_rows_f32(const struct op_args *a)
{
	const char *why = rule_unary_f32(a);

	NEED(!why, why);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_map(const struct op_args *a)
{
	NEED(a->src[0]->type == a->dst->type && is_type(a->dst, FLOATS), WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_unary(const struct op_args *a)
{
	uint32_t op = (uint32_t)a->dst->params[0];
	const char *why = rule_map(a);

	NEED(!why, why);
	if (op == WIRE_UNARY_XIELU)
		NEED(flat_rows(a->src[0]) && flat_rows(a->dst), WRONG_LAYOUT);
	if (op == WIRE_UNARY_GELU || op == WIRE_UNARY_GELU_QUICK || op == WIRE_UNARY_GELU_ERF ||
	    op == WIRE_UNARY_SILU)
		NEED(a->dst->type != OP_BF16 || a->env->types->bf16_maps, WRONG_TYPE);
	return NULL;
}

const char *rule_flat_map(const struct op_args *a)
{
	NEED(a->src[0]->type == a->dst->type && (is_f32(a->dst) || a->dst->type == OP_F16),
	     WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst) && flat_rows(a->src[0]) && flat_rows(a->dst),
	     WRONG_LAYOUT);
	return NULL;
}

const char *rule_silu_back(const struct op_args *a)
{
	const char *why = rule_flat_map(a);

	NEED(!why, why);
	NEED(a->src[1]->type == a->dst->type, WRONG_TYPE);
	NEED(same_shape(a->src[1], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[1]) && flat_rows(a->src[1]), WRONG_LAYOUT);
	return NULL;
}

const char *rule_glu(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *d = a->dst;
	int64_t n = y ? x->ne[0] : x->ne[0] / 2;

	NEED(d->type == x->type && is_type(x, FLOATS), WRONG_TYPE);
	NEED(d->params[0] != WIRE_GLU_SWIGLU_OAI || is_f32(x), WRONG_TYPE);
	if (d->type == OP_BF16)
		NEED(a->env->types->bf16_maps && d->params[0] != WIRE_GLU_SWIGLU_CLAMP, WRONG_TYPE);
	NEED(shape_is(d, n, x->ne[1], x->ne[2], x->ne[3]), WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, d) && flat_rows(x) && flat_rows(d), WRONG_LAYOUT);
	if (y) {
		NEED(y->type == x->type, WRONG_TYPE);
		NEED(same_shape(x, y), WRONG_SHAPE);
		NEED(packed(a, y) && flat_rows(y), WRONG_LAYOUT);
	}
	return NULL;
}

/* ADD, SUB, MUL, DIV: src[1] is repeated over src[0]. */
const char *rule_binary(const struct op_args *a)
{
	uint32_t x = a->src[0]->type, y = a->src[1]->type, d = a->dst->type;

	NEED(is_type(a->src[0], FLOATS), WRONG_TYPE);
	NEED((x == y && x == d) || (y == OP_F32 && (d == x || d == OP_F32)), WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst) && repeats(a->src[1], a->src[0]), WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_add_id(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *ids = a->src[2];

	NEED(is_f32(x) && is_f32(y) && is_f32(a->dst) && ids->type == OP_I32, WRONG_TYPE);
	NEED(same_shape(x, a->dst) && y->ne[0] == x->ne[0] && y->ne[2] == 1 && y->ne[3] == 1 &&
		     shape_is(ids, x->ne[1], x->ne[2], 1, 1),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, y) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_add1(const struct op_args *a)
{
	const char *why = rule_map(a);

	NEED(!why, why);
	NEED(is_f32(a->src[1]) || a->src[1]->type == a->dst->type, WRONG_TYPE);
	NEED(scalar(a->src[1]), WRONG_SHAPE);
	return NULL;
}

/* ACC, SET: src[1] goes into a view of the result, given by parameters. */
const char *rule_set(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *d = a->dst;
	int64_t end = y->ne[0] * 4, step;

	NEED(is_f32(x) || (d->op == WIRE_T_SET && x->type == OP_I32), WRONG_TYPE);
	NEED(x->type == d->type && y->type == d->type, WRONG_TYPE);
	NEED(same_shape(x, d), WRONG_SHAPE);
	NEED(dense(a, x) && dense(a, d) && packed(a, y), WRONG_LAYOUT);
	NEED(params_in(a, 0, 4, 0, INT32_MAX), WRONG_PARAM);
	for (int i = 0; i < 4; i++)
		NEED(d->params[i] % 4 == 0, WRONG_PARAM);
	for (int i = 1; i < WIRE_MAX_DIMS; i++) {
		step = (y->ne[i] - 1) * d->params[i - 1];
		NEED(step <= tensor_elems(d) * 4, WRONG_PARAM);
		end += step;
	}
	NEED(end + d->params[3] <= tensor_elems(d) * 4, WRONG_PARAM);
	return NULL;
}

const char *rule_dense_f32(const struct op_args *a)
{
	const char *why = rule_unary_f32(a);

	NEED(!why, why);
	NEED(dense(a, a->src[0]) && dense(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_scale(const struct op_args *a)
{
	if (a->dst->type != OP_BF16)
		return rule_dense_f32(a);
	NEED(a->env->types->bf16_maps && a->src[0]->type == OP_BF16, WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst), WRONG_SHAPE);
	NEED(dense(a, a->src[0]) && dense(a, a->dst), WRONG_LAYOUT);
	return NULL;
}
