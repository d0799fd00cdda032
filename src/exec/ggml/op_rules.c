/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of all rules, and how a node is checked against its own.
 *
 * Theory of operation: one function (in rules/) per family of operations says which types, shapes,
 * strides and parameters ggml's kernels can take without an abort, an endless loop or a stray
 * access.  By then graph_check.c has seen that every operand lies inside its buffer; so a kernel
 * that goes through its operands by their own strides is safe once the shapes agree, and the rules
 * here deal with those that assume more: rows that follow each other, planes without gaps,
 * divisions by a shape, scratch memory sized from another operand.
 *
 * The facts come from reading ggml 0.25 to 0.27: its constructors, its CPU kernels and the planner
 * that sizes their scratch memory.  Where a kernel takes more than the constructors produce, the
 * rules are those of the constructors.  Rules may only be stricter than ggml, never laxer. */
#include "exec/ggml/op_rules.h"

#include <string.h>

#include "exec/ggml/rules/rules.h"

/* ---- questions about one tensor ---- */

bool tensor_empty(const struct wire_tensor *t)
{
	return !t->ne[0] || !t->ne[1] || !t->ne[2] || !t->ne[3];
}

bool tensor_extent(const struct graph_types *types, const struct wire_tensor *t, uint64_t *bytes)
{
	uint64_t end = types->bytes[t->type];
	uint64_t n0 = (uint64_t)t->ne[0] / types->block[t->type];

	*bytes = 0;
	if (tensor_empty(t))
		return true;
	for (int i = 0; i < WIRE_MAX_DIMS; i++) {
		uint64_t n = i == 0 ? n0 : (uint64_t)t->ne[i];
		uint64_t step;

		if (__builtin_mul_overflow(n - 1, t->nb[i], &step) ||
		    __builtin_add_overflow(end, step, &end))
			return false;
	}
	*bytes = end;
	return true;
}

int64_t tensor_elems(const struct wire_tensor *t)
{
	if (tensor_empty(t)) /* whose other sizes nobody has multiplied yet */
		return 0;
	return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}

/* Without gaps; strides nobody multiplies with anything but 0 may be anything. */
bool tensor_dense(const struct graph_types *types, const struct wire_tensor *t)
{
	return t->nb[0] == types->bytes[t->type] &&
	       ((t->ne[1] == 1 && t->ne[2] == 1 && t->ne[3] == 1) ||
		(t->nb[1] == row_bytes(types, t) && flat_rows(t)));
}

/* ---- the table ---- */

#define S0    0x1
#define S01   0x3
#define S012  0x7
#define SIZES (OP_BIG | OP_EMPTY)

static const struct op_rule op_rules[WIRE_NUM_TENSOR_OPS] = {
	[WIRE_T_NONE] = {0, 0, OP_VIEW | SIZES, .check = rule_none},
	[WIRE_T_DUP] = {S0, 0, OP_EMPTY | OP_COPIES, .check = rule_copy},
	[WIRE_T_ADD] = {S01, 0, SIZES, .check = rule_binary},
	[WIRE_T_ADD_ID] = {S012, 0, OP_EMPTY, 2, OP_LIMIT_SRC1_ROWS, rule_add_id},
	[WIRE_T_ADD1] = {S01, 0, OP_EMPTY, .check = rule_add1},
	[WIRE_T_ACC] = {S01, 0, 0, .check = rule_set},
	[WIRE_T_SUB] = {S01, 0, SIZES, .check = rule_binary},
	[WIRE_T_MUL] = {S01, 0, SIZES, .check = rule_binary},
	[WIRE_T_DIV] = {S01, 0, SIZES, .check = rule_binary},
	[WIRE_T_SQR] = {S0, 0, SIZES, .check = rule_map},
	[WIRE_T_SQRT] = {S0, 0, SIZES, .check = rule_map},
	[WIRE_T_LOG] = {S0, 0, SIZES, .check = rule_map},
	[WIRE_T_SIN] = {S0, 0, SIZES, .check = rule_map},
	[WIRE_T_COS] = {S0, 0, SIZES, .check = rule_map},
	[WIRE_T_SUM] = {S0, 0, OP_BIG, .check = rule_sum},
	[WIRE_T_SUM_ROWS] = {S0, 0, SIZES, .check = rule_sum_rows},
	[WIRE_T_CUMSUM] = {S0, 0, OP_EMPTY, .check = rule_rows_f32},
	[WIRE_T_MEAN] = {S0, 0, SIZES, .check = rule_sum_rows},
	[WIRE_T_ARGMAX] = {S0, 0, OP_EMPTY, .check = rule_argmax},
	[WIRE_T_COUNT_EQUAL] = {S01, 0, 0, .check = rule_count_equal},
	[WIRE_T_REPEAT] = {S0, 0, OP_EMPTY, .check = rule_repeat},
	[WIRE_T_REPEAT_BACK] = {S0, 0, 0, .check = rule_repeat_back},
	[WIRE_T_CONCAT] = {S01, 0, SIZES | OP_COPIES, .check = rule_concat},
	[WIRE_T_SILU_BACK] = {S01, 0, 0, .check = rule_silu_back},
	[WIRE_T_NORM] = {S0, 0, SIZES | OP_COPIES, .check = rule_norm},
	[WIRE_T_RMS_NORM] = {S0, 0, SIZES | OP_COPIES, .check = rule_norm},
	[WIRE_T_RMS_NORM_BACK] = {S01, 0, 0, .check = rule_rms_norm_back},
	[WIRE_T_GROUP_NORM] = {S0, 0, 0, .check = rule_group_norm},
	[WIRE_T_L2_NORM] = {S0, 0, SIZES | OP_COPIES, .check = rule_norm},
	[WIRE_T_MUL_MAT] = {S01, 0, SIZES, .check = rule_mul_mat},
	[WIRE_T_MUL_MAT_ID] = {S012, 0, SIZES, 2, OP_LIMIT_SRC0_NE2, rule_mul_mat_id},
	[WIRE_T_OUT_PROD] = {S01, 0, OP_ROW_SCRATCH, .check = rule_out_prod},
	[WIRE_T_SCALE] = {S0, 0, SIZES, .check = rule_scale},
	[WIRE_T_SET] = {S01, 0, 0, .check = rule_set},
	[WIRE_T_CPY] = {S01, 0, OP_EMPTY, .check = rule_copy},
	[WIRE_T_CONT] = {S0, 0, OP_EMPTY | OP_COPIES, .check = rule_copy},
	[WIRE_T_RESHAPE] = {S0, 0, OP_VIEW | SIZES, .check = rule_reshape},
	[WIRE_T_VIEW] = {S0, 0, OP_VIEW | SIZES, .check = rule_view},
	[WIRE_T_PERMUTE] = {S0, 0, OP_VIEW | SIZES, .check = rule_permute},
	[WIRE_T_TRANSPOSE] = {S0, 0, OP_VIEW | SIZES, .check = rule_permute},
	[WIRE_T_GET_ROWS] = {S01, 0, SIZES, 1, OP_LIMIT_SRC0_ROWS, rule_get_rows},
	[WIRE_T_GET_ROWS_BACK] = {S01, 0, 0, 1, OP_LIMIT_DST_ROWS, rule_get_rows_back},
	[WIRE_T_SET_ROWS] = {S01, 4, OP_BIG | OP_ROW_SCRATCH | OP_NO_ROWS, 1, OP_LIMIT_DST_ROWS,
			     rule_set_rows},
	[WIRE_T_DIAG] = {S0, 0, 0, .check = rule_diag},
	[WIRE_T_DIAG_MASK_INF] = {S0, 0, 0, .check = rule_diag_mask},
	[WIRE_T_DIAG_MASK_ZERO] = {S0, 0, 0, .check = rule_diag_mask},
	[WIRE_T_SOFT_MAX] = {S0, 6, SIZES | OP_ROW_SCRATCH, .check = rule_soft_max},
	[WIRE_T_SOFT_MAX_BACK] = {S01, 0, 0, .check = rule_soft_max_back},
	[WIRE_T_ROPE] = {S01, 4, OP_EMPTY | OP_ROW_SCRATCH, .check = rule_rope},
	[WIRE_T_ROPE_BACK] = {S01, 4, OP_ROW_SCRATCH, .check = rule_rope},
	[WIRE_T_CLAMP] = {S0, 0, OP_EMPTY, .check = rule_flat_map},
	[WIRE_T_CONV_TRANSPOSE_1D] = {S01, 0, 0, .check = rule_conv_transpose_1d},
	[WIRE_T_IM2COL] = {S01, 0, 0, .check = rule_im2col},
	[WIRE_T_IM2COL_BACK] = {S01, 0, 0, .check = rule_im2col},
	[WIRE_T_IM2COL_3D] = {S01, 0, OP_EMPTY, .check = rule_im2col_3d},
	[WIRE_T_COL2IM_1D] = {S0, 0, 0, .check = rule_col2im_1d},
	[WIRE_T_CONV_2D] = {S01, 0, 0, .check = rule_conv_2d},
	[WIRE_T_CONV_3D] = {S01, 0, 0, .check = rule_conv_3d},
	[WIRE_T_CONV_2D_DW] = {S01, 0, 0, .check = rule_conv_2d_dw},
	[WIRE_T_CONV_TRANSPOSE_2D] = {S01, 0, 0, .check = rule_conv_transpose_2d},
	[WIRE_T_POOL_1D] = {S0, 0, 0, .check = rule_pool_1d},
	[WIRE_T_POOL_2D] = {S0, 0, 0, .check = rule_pool_2d},
	[WIRE_T_UPSCALE] = {S0, 0, 0, .check = rule_upscale},
	[WIRE_T_PAD] = {S0, 0, 0, .check = rule_pad},
	[WIRE_T_PAD_REFLECT_1D] = {S0, 0, 0, .check = rule_pad_reflect_1d},
	[WIRE_T_ROLL] = {S0, 0, 0, .check = rule_roll},
	[WIRE_T_ARANGE] = {0, 0, 0, .check = rule_arange},
	[WIRE_T_TIMESTEP_EMBEDDING] = {S0, 0, 0, .check = rule_timestep_embedding},
	[WIRE_T_ARGSORT] = {S0, 0, OP_EMPTY, .check = rule_sort},
	[WIRE_T_TOP_K] = {S0, 0, OP_ROW_SCRATCH, .check = rule_sort},
	[WIRE_T_LEAKY_RELU] = {S0, 0, OP_EMPTY, .check = rule_flat_map},
	[WIRE_T_TRI] = {S0, 0, 0, .check = rule_tri},
	[WIRE_T_FILL] = {S0, 0, OP_EMPTY, .check = rule_fill},
	[WIRE_T_FLASH_ATTN_EXT] = {S012, 0x18, OP_BIG, .check = rule_flash_attn},
	[WIRE_T_SSM_CONV] = {S01, 0, 0, .check = rule_ssm_conv},
	[WIRE_T_SSM_SCAN] = {0x7f, 0, 0, 6, OP_LIMIT_SRC0_NE3, rule_ssm_scan},
	[WIRE_T_WIN_PART] = {S0, 0, 0, .check = rule_win_part},
	[WIRE_T_WIN_UNPART] = {S0, 0, 0, .check = rule_win_unpart},
	[WIRE_T_GET_REL_POS] = {S0, 0, 0, .check = rule_get_rel_pos},
	[WIRE_T_ADD_REL_POS] = {S012, 0, 0, .check = rule_add_rel_pos},
	[WIRE_T_RWKV_WKV6] = {0x3f, 0, 0, .check = rule_recurrent},
	[WIRE_T_GATED_LINEAR_ATTN] = {0x1f, 0, 0, .check = rule_recurrent},
	[WIRE_T_RWKV_WKV7] = {0x7f, 0, 0, .check = rule_recurrent},
	[WIRE_T_SOLVE_TRI] = {S01, 0, 0, .check = rule_solve_tri},
	[WIRE_T_GATED_DELTA_NET] = {0x3f, 0, 0, .check = rule_gated_delta_net},
	[WIRE_T_LIGHTNING_INDEXER] = {0xf, 0, OP_ROW_SCRATCH, .check = rule_lightning_indexer},
	[WIRE_T_DSV4_HC_COMB] = {S012, 0, 0, .check = rule_hc_comb},
	[WIRE_T_DSV4_HC_PRE] = {S01, 0, 0, .check = rule_hc_pre},
	[WIRE_T_DSV4_HC_POST] = {S012, 8, 0, .check = rule_hc_post},
	[WIRE_T_UNARY] = {S0, 0, SIZES, .check = rule_unary},
	[WIRE_T_CROSS_ENTROPY_LOSS] = {S01, 0, OP_ROW_SCRATCH, .check = rule_cross_entropy},
	[WIRE_T_CROSS_ENTROPY_LOSS_BACK] = {S012, 0, 0, .check = rule_cross_entropy_back},
	[WIRE_T_OPT_STEP_ADAMW] = {0x1f, 0, 0, .check = rule_opt_step},
	[WIRE_T_OPT_STEP_SGD] = {S012, 0, 0, .check = rule_opt_step},
	[WIRE_T_GLU] = {S0, 2, SIZES, .check = rule_glu},
};

const struct op_rule *op_rule_find(uint32_t op)
{
	return op < WIRE_NUM_TENSOR_OPS && op_rules[op].check ? &op_rules[op] : NULL;
}

/* Queries have no place yet: buffer 0. */
static bool apart_or_in_place(const struct op_args *a, const struct wire_tensor *x)
{
	const struct wire_tensor *d = a->dst;
	uint64_t x_bytes, d_bytes;

	if (!x || !d->buffer || x->buffer != d->buffer)
		return true;
	if (!tensor_extent(a->env->types, x, &x_bytes) ||
	    !tensor_extent(a->env->types, d, &d_bytes))
		return false;
	if (d->offset >= x->offset ? d->offset - x->offset >= x_bytes
				   : x->offset - d->offset >= d_bytes)
		return true;
	return d->offset == x->offset && same_shape(x, d) && !memcmp(x->nb, d->nb, sizeof(x->nb));
}

static const char *check_sources(const struct op_rule *rule, const struct op_args *a, bool *empty)
{
	*empty = false;
	for (uint32_t i = 0; i < WIRE_MAX_SRC; i++) {
		const struct wire_tensor *s = a->src[i];

		NEED(s || !(rule->required >> i & 1), "a source is missing");
		if (!s)
			continue;
		NEED((rule->required | rule->optional) >> i & 1, "a source too many");
		*empty = *empty || tensor_empty(s);
		NEED((rule->flags & OP_BIG) || tensor_elems(s) <= INT32_MAX, "too many elements");
	}
	return NULL;
}

/* ggml skips a result without elements, but plans for it, and may still look at its shape when it
 * fuses it with the next operation. */
static const char *check_empty(const struct op_rule *rule, const struct op_args *a)
{
	uint32_t op = a->dst->op;

	NEED(rule->flags & (OP_EMPTY | OP_VIEW), "nothing to compute");
	if (op == WIRE_T_NORM || op == WIRE_T_RMS_NORM || op == WIRE_T_L2_NORM)
		return rule_norm(a);
	if (op == WIRE_T_MUL_MAT || op == WIRE_T_MUL_MAT_ID) {
		NEED(is_type(a->src[0], FLOATS | QUANTS), WRONG_TYPE);
		NEED(fits_dense(a, a->src[1]), TOO_LARGE);
	}
	if (op == WIRE_T_MUL_MAT_ID)
		NEED(a->src[0]->ne[2] <= MAX_EXPERTS &&
			     tensor_elems(a->src[2]) <= MAX_EXPERT_SLOTS / MAX_EXPERTS,
		     TOO_LARGE);
	if (op == WIRE_T_CPY || op == WIRE_T_DUP || op == WIRE_T_SOFT_MAX || op == WIRE_T_ROPE)
		NEED(a->dst->ne[0] <= MAX_ROW_SCRATCH, TOO_LARGE);
	return NULL;
}

const char *op_rule_check(const struct op_rule *rule, const struct op_args *a)
{
	bool empty_source;
	const char *why = check_sources(rule, a, &empty_source);

	NEED(!why, why);
	if (rule->flags & OP_VIEW)
		return rule->check(a);
	NEED((rule->flags & OP_BIG) || tensor_elems(a->dst) <= INT32_MAX, "too many elements");
	if (a->dst->op == WIRE_T_UNARY)
		NEED(in_range(a->dst->params[0], 0, WIRE_NUM_UNARY_OPS - 1) &&
			     wire_bit(a->env->unary, (uint32_t)a->dst->params[0]),
		     "a function that is not known");
	if (a->dst->op == WIRE_T_GLU)
		NEED(in_range(a->dst->params[0], 0, WIRE_NUM_GLU_OPS - 1) &&
			     wire_bit(a->env->glu, (uint32_t)a->dst->params[0]),
		     "a function that is not known");
	if (tensor_empty(a->dst))
		return check_empty(rule, a);
	NEED(!empty_source || (rule->flags & OP_NO_ROWS), "a source without elements");
	for (int i = 0; i < 2 && (rule->flags & OP_COPIES); i++)
		NEED(apart_or_in_place(a, a->src[i]), "a result partly over its source");
	NEED(!(rule->flags & OP_ROW_SCRATCH) || a->src[0]->ne[0] <= MAX_ROW_SCRATCH, TOO_LARGE);
	return rule->check(a);
}

int64_t op_rule_limit(const struct op_rule *rule, const struct op_args *a)
{
	switch ((enum op_index_limit)rule->limit) {
	case OP_LIMIT_DST_ROWS:
		return a->dst->ne[1];
	case OP_LIMIT_SRC0_ROWS:
		return a->src[0]->ne[1];
	case OP_LIMIT_SRC0_NE2:
		return a->src[0]->ne[2];
	case OP_LIMIT_SRC0_NE3:
		return a->src[0]->ne[3];
	case OP_LIMIT_SRC1_ROWS:
		return a->src[1]->ne[1];
	case OP_LIMIT_NONE:
		break;
	}
	return 0;
}
