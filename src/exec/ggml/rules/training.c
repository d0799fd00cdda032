/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of losses and of the steps that change weights. */
#include "exec/ggml/rules/rules.h"

/* The mean over all rows, of which each thread keeps one. */
const char *rule_cross_entropy(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1];

	NEED(is_f32(x) && is_f32(y) && is_f32(a->dst), WRONG_TYPE);
	NEED(same_shape(x, y) && scalar(a->dst), WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, y), WRONG_LAYOUT);
	return NULL;
}

const char *rule_cross_entropy_back(const struct op_args *a)
{
	const struct wire_tensor *grad = a->src[0], *x = a->src[1], *y = a->src[2];

	NEED(is_f32(grad) && is_f32(x) && is_f32(y) && is_f32(a->dst), WRONG_TYPE);
	NEED(scalar(grad) && same_shape(x, y) && same_shape(x, a->dst), WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, y) && strict(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

/* OPT_STEP_ADAMW, OPT_STEP_SGD: the weights are both the first source and the result; what else is
 * as large goes along by their strides. */
const char *rule_opt_step(const struct op_args *a)
{
	const struct wire_tensor *d = a->dst, *x = a->src[0];
	int n = d->op == WIRE_T_OPT_STEP_ADAMW ? 4 : 2;

	for (int i = 0; i < n; i++) {
		NEED(is_f32(a->src[i]), WRONG_TYPE);
		NEED(same_shape(a->src[i], d), WRONG_SHAPE);
		NEED(strict(a, a->src[i]), WRONG_LAYOUT);
	}
	NEED(is_f32(d) && is_f32(a->src[n]), WRONG_TYPE);
	NEED(tensor_elems(a->src[n]) == (n == 4 ? 7 : 2), WRONG_SHAPE);
	NEED(strict(a, d) && dense(a, a->src[n]), WRONG_LAYOUT);
	NEED(a->query || (d->buffer == x->buffer && d->offset == x->offset),
	     "weights that are not the result");
	return NULL;
}
