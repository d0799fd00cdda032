/* SPDX-License-Identifier: Apache-2.0 */
#include "op_cost.h"

/* Steps per element of the result; of the sums behind it, mostly. */
static uint64_t work_per_element(const struct op_args *a)
{
	const struct wire_tensor *d = a->dst, *x = a->src[0], *y = a->src[1];
	const int32_t *p = d->params;

	switch (d->op) {
	case WIRE_T_MUL_MAT:
	case WIRE_T_MUL_MAT_ID:
		return (uint64_t)x->ne[0];
	case WIRE_T_OUT_PROD:
	case WIRE_T_SOLVE_TRI:
		return (uint64_t)x->ne[1];
	case WIRE_T_FLASH_ATTN_EXT:
		return (uint64_t)y->ne[1] * 2;
	case WIRE_T_CONV_2D:
		return (uint64_t)(x->ne[0] * x->ne[1] * x->ne[2]);
	case WIRE_T_CONV_3D:
		return (uint64_t)(x->ne[0] * x->ne[1] * x->ne[2] * p[9]);
	case WIRE_T_CONV_2D_DW:
		return (uint64_t)(x->ne[0] * x->ne[1]);
	case WIRE_T_CONV_TRANSPOSE_1D:
		return (uint64_t)(x->ne[0] * x->ne[2]);
	case WIRE_T_CONV_TRANSPOSE_2D:
		return (uint64_t)(x->ne[0] * x->ne[1] * x->ne[3]);
	case WIRE_T_IM2COL_BACK:
		return (uint64_t)(y->ne[0] * y->ne[1]);
	case WIRE_T_COL2IM_1D:
		return (uint64_t)x->ne[0];
	case WIRE_T_POOL_1D:
		return (uint64_t)p[1];
	case WIRE_T_POOL_2D:
		return (uint64_t)p[1] * (uint64_t)p[2];
	case WIRE_T_UPSCALE: /* at most all of the source, when it is made smaller */
		return 16 + (uint64_t)(tensor_elems(x) / tensor_elems(d));
	case WIRE_T_SSM_CONV:
		return (uint64_t)y->ne[0];
	case WIRE_T_SSM_SCAN:
		return (uint64_t)x->ne[0] * 4;
	case WIRE_T_RWKV_WKV6:
	case WIRE_T_RWKV_WKV7:
	case WIRE_T_GATED_LINEAR_ATTN:
		return (uint64_t)y->ne[0] * 4;
	case WIRE_T_GATED_DELTA_NET:
		return (uint64_t)a->src[2]->ne[0] * 4;
	case WIRE_T_LIGHTNING_INDEXER:
		return (uint64_t)(x->ne[0] * x->ne[1]);
	case WIRE_T_DSV4_HC_COMB:
		return (uint64_t)p[1] * 16;
	default:
		return 1;
	}
}

/* Products of unlike types convert src[1]: to 16 bits an element, or less. */
static uint64_t converted(const struct wire_tensor *x, const struct wire_tensor *y)
{
	return x->type == OP_F32 || x->type == y->type ? 0 : (uint64_t)tensor_elems(y) * 2;
}

/* Copies of operands in the form a kernel wants; see ggml_graph_plan(). */
static uint64_t shared_scratch(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1];

	switch (a->dst->op) {
	case WIRE_T_MUL_MAT:
		return converted(x, y);
	case WIRE_T_MUL_MAT_ID: /* and the rows of each expert */
		return converted(x, y) +
		       (uint64_t)x->ne[2] * (72 + (uint64_t)tensor_elems(a->src[2]) * 8);
	case WIRE_T_CONV_TRANSPOSE_1D:
	case WIRE_T_CONV_TRANSPOSE_2D:
		return (uint64_t)tensor_elems(x) * a->env->types->bytes[x->type] +
		       (uint64_t)tensor_elems(y) * a->env->types->bytes[x->type];
	case WIRE_T_CONV_2D:
	case WIRE_T_CONV_3D:
		return OP_CONV_SCRATCH;
	default:
		return 0;
	}
}

static uint64_t thread_scratch(const struct op_rule *rule, const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;
	uint64_t dk, dv;

	switch (d->op) {
	case WIRE_T_FLASH_ATTN_EXT: /* a tile of queries and keys, or a part of all heads */
		dk = (uint64_t)a->src[1]->ne[0];
		dv = (uint64_t)a->src[2]->ne[0];
		return 4 * (128 * (64 + dk + dv) + (uint64_t)x->ne[2] * (2 + dv));
	case WIRE_T_GATED_DELTA_NET:
		dv = (uint64_t)a->src[2]->ne[0];
		return 4 * (dv + dv * dv);
	case WIRE_T_CPY:
	case WIRE_T_DUP:
		return (uint64_t)d->ne[0] * 4;
	case WIRE_T_CROSS_ENTROPY_LOSS: /* and a sum */
		return (uint64_t)x->ne[0] * 4 + 4;
	default:
		return rule->flags & OP_ROW_SCRATCH ? (uint64_t)x->ne[0] * 4 : 0;
	}
}

static uint64_t times(uint64_t x, uint64_t y)
{
	uint64_t product;

	return __builtin_mul_overflow(x, y, &product) ? UINT64_MAX : product;
}

struct op_cost op_cost_of(const struct op_rule *rule, const struct op_args *a)
{
	uint64_t n = (uint64_t)tensor_elems(a->dst);
	struct op_cost cost = {0};

	if (tensor_empty(a->dst) || (rule->flags & OP_VIEW))
		return cost;
	cost.work = times(n, work_per_element(a));
	cost.scratch = shared_scratch(a);
	if (a->src[0]) {
		uint64_t sources = (uint64_t)tensor_elems(a->src[0]);

		cost.work = cost.work < sources ? sources : cost.work;
		cost.thread_scratch = thread_scratch(rule, a);
	}
	return cost;
}
