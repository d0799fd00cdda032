/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of the operations that compute nothing: views, and other orders of the dimensions. */
#include "exec/ggml/rules/rules.h"

const char *rule_none(const struct op_args *a)
{
	(void)a;
	return NULL;
}

/* Back ends that fuse nodes look through views and take the shapes for what ggml's constructors
 * make of them.  A view of a sort picks columns: the rows are written as those of the sort. */
const char *rule_view(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	if (x->op != WIRE_T_ARGSORT && x->op != WIRE_T_TOP_K)
		return NULL;
	NEED(x->type == d->type && packed(a, d) && d->ne[0] <= x->ne[0], WRONG_SHAPE);
	for (int i = 1; i < WIRE_MAX_DIMS; i++)
		NEED(d->ne[i] == x->ne[i] && (d->ne[i] == 1 || d->nb[i] == x->nb[i]), WRONG_SHAPE);
	return NULL;
}

const char *rule_reshape(const struct op_args *a)
{
	NEED(a->src[0]->type == a->dst->type, WRONG_TYPE);
	NEED(tensor_elems(a->src[0]) == tensor_elems(a->dst), WRONG_SHAPE);
	NEED(loosely_dense(a, a->src[0]) && loosely_dense(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

/* PERMUTE, TRANSPOSE: the same dimensions, each with its stride, in another order. */
const char *rule_permute(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;
	unsigned left = (1u << WIRE_MAX_DIMS) - 1;

	NEED(x->type == d->type, WRONG_TYPE);
	for (int i = 0; i < WIRE_MAX_DIMS; i++) {
		int k = 0;

		while (k < WIRE_MAX_DIMS &&
		       !(left >> k & 1 && x->ne[k] == d->ne[i] && x->nb[k] == d->nb[i]))
			k++;
		NEED(k < WIRE_MAX_DIMS, WRONG_SHAPE);
		left &= ~(1u << k);
	}
	return NULL;
}
