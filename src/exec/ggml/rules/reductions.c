/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of sums, repetitions, concatenation and norms. */
#include "exec/ggml/rules/rules.h"

const char *rule_sum(const struct op_args *a)
{
	NEED(is_type(a->src[0], FLOATS) && a->dst->type == a->src[0]->type, WRONG_TYPE);
	NEED(scalar(a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[0]), WRONG_LAYOUT);
	return NULL;
}

const char *rule_sum_rows(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0];

	NEED(is_f32(x) && is_f32(a->dst), WRONG_TYPE);
	NEED(shape_is(a->dst, 1, x->ne[1], x->ne[2], x->ne[3]), WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_argmax(const struct op_args *a)
{
	NEED(is_f32(a->src[0]) && a->dst->type == OP_I32, WRONG_TYPE);
	NEED(a->src[0]->ne[2] == 1 && a->src[0]->ne[3] == 1 &&
		     shape_is(a->dst, a->src[0]->ne[1], 1, 1, 1),
	     WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_count_equal(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0];

	NEED(x->type == OP_I32 && a->src[1]->type == OP_I32 && a->dst->type == OP_I64, WRONG_TYPE);
	NEED(same_shape(x, a->src[1]) && scalar(a->dst), WRONG_SHAPE);
	NEED(x->ne[2] == 1 && x->ne[3] == 1, WRONG_SHAPE); /* the kernel miscounts otherwise */
	return NULL;
}

const char *rule_repeat(const struct op_args *a)
{
	uint64_t types = FLOATS | TYPE_BIT(OP_I16) | TYPE_BIT(OP_I32);

	NEED(is_type(a->src[0], types) && a->dst->type == a->src[0]->type, WRONG_TYPE);
	NEED(repeats(a->src[0], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_repeat_back(const struct op_args *a)
{
	NEED(is_f32(a->src[0]) && is_f32(a->dst), WRONG_TYPE);
	NEED(repeats(a->dst, a->src[0]), WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_concat(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *d = a->dst;
	int32_t dim = d->params[0];

	NEED(x->type == y->type && x->type == d->type, WRONG_TYPE);
	NEED(in_range(dim, 0, WIRE_MAX_DIMS - 1), WRONG_PARAM);
	for (int i = 0; i < WIRE_MAX_DIMS; i++)
		NEED(i == dim ? d->ne[i] == x->ne[i] + y->ne[i]
			      : d->ne[i] == x->ne[i] && d->ne[i] == y->ne[i],
		     WRONG_SHAPE);
	if (unit(a, x) > 4 || a->env->types->block[x->type] > 1)
		NEED(packed(a, x) && packed(a, y) && packed(a, d), WRONG_LAYOUT);
	return NULL;
}

const char *rule_norm(const struct op_args *a)
{
	const char *why = rule_unary_f32(a);

	NEED(!why, why);
	NEED(float_param(a, 0) >= 0.0f, WRONG_PARAM); /* not a NaN either */
	if (a->dst->op == WIRE_T_RMS_NORM)
		NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

const char *rule_rms_norm_back(const struct op_args *a)
{
	const char *why = rule_rows_f32(a);

	NEED(!why, why);
	NEED(is_f32(a->src[1]), WRONG_TYPE);
	NEED(same_shape(a->src[1], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[1]), WRONG_LAYOUT);
	return NULL;
}

const char *rule_group_norm(const struct op_args *a)
{
	const char *why = rule_rows_f32(a);

	NEED(!why, why);
	NEED(in_range(a->dst->params[0], 1, a->src[0]->ne[2]), WRONG_PARAM);
	NEED(float_param(a, 1) >= 0.0f, WRONG_PARAM);
	return NULL;
}
