/* SPDX-License-Identifier: Apache-2.0
 *
 * rules.h -- what the rules of all families share: questions about tensors, limits, and the names
 * of the rules.  Only op_rules.c and the files of this folder include it. */
#ifndef PIL_GGML_RULES_H
#define PIL_GGML_RULES_H

#include <string.h>

#include "exec/ggml/op_rules.h"

#define NEED(cond, why)                                                                            \
	do {                                                                                       \
		if (!(cond))                                                                       \
			return why;                                                                \
	} while (0)

enum {
	MAX_ROW_SCRATCH = 1 << 24, /* elements of a row kept per thread */
	MAX_HEAD = 4096,           /* elements of an attention head */
	MAX_STATE = 1024,          /* rows of a recurrent state matrix */
	MAX_EXPERTS = 1 << 16,
	MAX_EXPERT_SLOTS = 1 << 27, /* experts * tokens * experts per token */
	MAX_CONV_PARAM = 1 << 16,   /* strides, paddings, dilations, pool sizes */
	MAX_PLANE = 1 << 20,        /* side of an image that is scaled with float arithmetic */
	WKV7_STEP = 64,             /* elements the widest SIMD kernel takes at once */
	MAX_ITERATIONS = 1024,
};

#define WRONG_TYPE   "a type the operation cannot take"
#define WRONG_SHAPE  "shapes that do not fit together"
#define WRONG_LAYOUT "strides the operation cannot take"
#define WRONG_PARAM  "a parameter out of range"
#define TOO_LARGE    "more scratch memory than is allowed"

#define TYPE_BIT(t) (UINT64_C(1) << (t))
#define FLOATS      (TYPE_BIT(OP_F32) | TYPE_BIT(OP_F16) | TYPE_BIT(OP_BF16))
/* Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K .. Q6_K IQ2_XXS .. IQ4_XS IQ1_M TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0:
 * those that products take and that can be read back. */
#define QUANTS                                                                                     \
	(TYPE_BIT(2) | TYPE_BIT(3) | TYPE_BIT(6) | TYPE_BIT(7) | TYPE_BIT(8) |                     \
	 UINT64_C(0x1f) << 10 | UINT64_C(0xff) << 16 | TYPE_BIT(29) | TYPE_BIT(34) |               \
	 TYPE_BIT(35) | UINT64_C(0xf) << 39)
/* Those with a fast way to make them from floats: not IQ2, IQ3, IQ1. */
#define WRITABLE_QUANTS                                                                            \
	(TYPE_BIT(2) | TYPE_BIT(3) | TYPE_BIT(6) | TYPE_BIT(7) | TYPE_BIT(8) |                     \
	 UINT64_C(0x1f) << 10 | TYPE_BIT(20) | TYPE_BIT(23) | TYPE_BIT(34) | TYPE_BIT(35) |        \
	 UINT64_C(0xf) << 39)

/* ---- questions about one tensor ---- */

static inline uint64_t unit(const struct op_args *a, const struct wire_tensor *t)
{
	return a->env->types->bytes[t->type];
}

static inline uint64_t row_bytes(const struct graph_types *types, const struct wire_tensor *t)
{
	return (uint64_t)t->ne[0] / types->block[t->type] * types->bytes[t->type];
}

static inline bool is_type(const struct wire_tensor *t, uint64_t set)
{
	return set >> t->type & 1;
}

static inline bool is_f32(const struct wire_tensor *t)
{
	return t->type == OP_F32;
}

/* Elements of a row follow each other. */
static inline bool packed(const struct op_args *a, const struct wire_tensor *t)
{
	return t->nb[0] == unit(a, t);
}

/* The stride of dimension @i is what it is without gaps below. */
static inline bool tight(const struct wire_tensor *t, int i)
{
	return t->nb[i] == t->nb[i - 1] * (uint64_t)t->ne[i - 1];
}

/* Row r lies at r * nb[1], for kernels that count rows without regard to the higher dimensions. */
static inline bool flat_rows(const struct wire_tensor *t)
{
	return (t->ne[2] == 1 && t->ne[3] == 1) || (tight(t, 2) && (t->ne[3] == 1 || tight(t, 3)));
}

/* Without gaps, each stride exactly, even of dimensions with one element. */
static inline bool strict(const struct op_args *a, const struct wire_tensor *t)
{
	return packed(a, t) && t->nb[1] == row_bytes(a->env->types, t) && tight(t, 2) &&
	       tight(t, 3);
}

static inline bool dense(const struct op_args *a, const struct wire_tensor *t)
{
	return tensor_dense(a->env->types, t);
}

/* What ggml itself calls contiguous: the strides of dimensions with one element do not count. */
static inline bool loosely_dense(const struct op_args *a, const struct wire_tensor *t)
{
	uint64_t next = unit(a, t);

	if ((uint64_t)t->ne[0] != a->env->types->block[t->type] && t->nb[0] != next)
		return false;
	next = row_bytes(a->env->types, t);
	for (int i = 1; i < WIRE_MAX_DIMS; i++) {
		if (t->ne[i] != 1 && t->nb[i] != next)
			return false;
		next *= (uint64_t)t->ne[i];
	}
	return true;
}

/* No more elements than there is room for, which strides that let them overlap would allow: then
 * kernels that ignore the strides stay inside, and copies of all elements are not larger. */
static inline bool fits_dense(const struct op_args *a, const struct wire_tensor *t)
{
	uint64_t extent;

	return tensor_extent(a->env->types, t, &extent) &&
	       (uint64_t)tensor_elems(t) / a->env->types->block[t->type] * unit(a, t) <= extent;
}

static inline bool rising(const struct wire_tensor *t)
{
	return t->nb[0] <= t->nb[1] && t->nb[1] <= t->nb[2] && t->nb[2] <= t->nb[3];
}

static inline bool scalar(const struct wire_tensor *t)
{
	return tensor_elems(t) == 1;
}

/* ---- questions about several ---- */

static inline bool shape_is(const struct wire_tensor *t, int64_t n0, int64_t n1, int64_t n2,
			    int64_t n3)
{
	return t->ne[0] == n0 && t->ne[1] == n1 && t->ne[2] == n2 && t->ne[3] == n3;
}

static inline bool same_shape(const struct wire_tensor *x, const struct wire_tensor *y)
{
	return shape_is(x, y->ne[0], y->ne[1], y->ne[2], y->ne[3]);
}

static inline bool divides(int64_t part, int64_t whole)
{
	return part > 0 && whole % part == 0;
}

static inline bool repeats(const struct wire_tensor *small, const struct wire_tensor *big)
{
	return divides(small->ne[0], big->ne[0]) && divides(small->ne[1], big->ne[1]) &&
	       divides(small->ne[2], big->ne[2]) && divides(small->ne[3], big->ne[3]);
}

static inline bool in_range(int64_t v, int64_t low, int64_t high)
{
	return v >= low && v <= high;
}

static inline float float_param(const struct op_args *a, int i)
{
	float f;

	memcpy(&f, &a->dst->params[i], sizeof(f));
	return f;
}

/* Do the first and the last of @n consecutive parameters, and all between, lie in the range? */
static inline bool params_in(const struct op_args *a, int first, int n, int64_t low, int64_t high)
{
	for (int i = first; i < first + n; i++)
		if (!in_range(a->dst->params[i], low, high))
			return false;
	return true;
}

/* ---- the rules: NULL, or what is broken ---- */

/* views.c */
const char *rule_none(const struct op_args *a);
const char *rule_view(const struct op_args *a);
const char *rule_reshape(const struct op_args *a);
const char *rule_permute(const struct op_args *a);

/* maps.c */
const char *rule_unary_f32(const struct op_args *a);
const char *rule_rows_f32(const struct op_args *a);
const char *rule_map(const struct op_args *a);
const char *rule_unary(const struct op_args *a);
const char *rule_flat_map(const struct op_args *a);
const char *rule_silu_back(const struct op_args *a);
const char *rule_glu(const struct op_args *a);
const char *rule_binary(const struct op_args *a);
const char *rule_add_id(const struct op_args *a);
const char *rule_add1(const struct op_args *a);
const char *rule_set(const struct op_args *a);
const char *rule_dense_f32(const struct op_args *a);
const char *rule_scale(const struct op_args *a);

/* reductions.c */
const char *rule_sum(const struct op_args *a);
const char *rule_sum_rows(const struct op_args *a);
const char *rule_argmax(const struct op_args *a);
const char *rule_count_equal(const struct op_args *a);
const char *rule_repeat(const struct op_args *a);
const char *rule_repeat_back(const struct op_args *a);
const char *rule_concat(const struct op_args *a);
const char *rule_norm(const struct op_args *a);
const char *rule_rms_norm_back(const struct op_args *a);
const char *rule_group_norm(const struct op_args *a);

/* products.c */
const char *rule_mul_mat(const struct op_args *a);
const char *rule_mul_mat_id(const struct op_args *a);
const char *rule_out_prod(const struct op_args *a);

/* rows.c */
const char *rule_copy(const struct op_args *a);
const char *rule_get_rows(const struct op_args *a);
const char *rule_get_rows_back(const struct op_args *a);
const char *rule_set_rows(const struct op_args *a);
const char *rule_diag(const struct op_args *a);
const char *rule_diag_mask(const struct op_args *a);

/* attention.c */
const char *rule_soft_max(const struct op_args *a);
const char *rule_soft_max_back(const struct op_args *a);
const char *rule_rope(const struct op_args *a);
const char *rule_flash_attn(const struct op_args *a);
const char *rule_lightning_indexer(const struct op_args *a);

/* convolutions.c */
const char *rule_conv_transpose_1d(const struct op_args *a);
const char *rule_conv_transpose_2d(const struct op_args *a);
const char *rule_im2col(const struct op_args *a);
const char *rule_im2col_3d(const struct op_args *a);
const char *rule_col2im_1d(const struct op_args *a);
const char *rule_conv_2d(const struct op_args *a);
const char *rule_conv_3d(const struct op_args *a);
const char *rule_conv_2d_dw(const struct op_args *a);
const char *rule_pool_1d(const struct op_args *a);
const char *rule_pool_2d(const struct op_args *a);

/* planes.c */
const char *rule_upscale(const struct op_args *a);
const char *rule_pad(const struct op_args *a);
const char *rule_pad_reflect_1d(const struct op_args *a);
const char *rule_roll(const struct op_args *a);
const char *rule_arange(const struct op_args *a);
const char *rule_timestep_embedding(const struct op_args *a);
const char *rule_sort(const struct op_args *a);
const char *rule_tri(const struct op_args *a);
const char *rule_fill(const struct op_args *a);
const char *rule_win_part(const struct op_args *a);
const char *rule_win_unpart(const struct op_args *a);
const char *rule_get_rel_pos(const struct op_args *a);
const char *rule_add_rel_pos(const struct op_args *a);

/* recurrent.c */
const char *rule_ssm_conv(const struct op_args *a);
const char *rule_ssm_scan(const struct op_args *a);
const char *rule_recurrent(const struct op_args *a);
const char *rule_solve_tri(const struct op_args *a);
const char *rule_gated_delta_net(const struct op_args *a);

/* hyper.c */
const char *rule_hc_comb(const struct op_args *a);
const char *rule_hc_pre(const struct op_args *a);
const char *rule_hc_post(const struct op_args *a);

/* training.c */
const char *rule_cross_entropy(const struct op_args *a);
const char *rule_cross_entropy_back(const struct op_args *a);
const char *rule_opt_step(const struct op_args *a);

#endif
