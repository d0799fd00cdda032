/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: one function per family of operations says which types, shapes, strides and
 * parameters ggml's kernels can take without an abort, an endless loop or a stray access.  By then
 * graph_check.c has seen that every operand lies inside its buffer; so a kernel that goes through
 * its operands by their own strides is safe once the shapes agree, and the rules here deal with
 * those that assume more: rows that follow each other, planes without gaps, divisions by a shape,
 * scratch memory sized from another operand.
 *
 * The facts come from reading ggml 0.25 to 0.27: its constructors, its CPU kernels and the planner
 * that sizes their scratch memory.  Where a kernel takes more than the constructors produce, the
 * rules are those of the constructors.  Rules may only be stricter than ggml, never laxer. */
#include "exec/ggml/op_rules.h"

#include <string.h>

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

static const char WRONG_TYPE[] = "a type the operation cannot take";
static const char WRONG_SHAPE[] = "shapes that do not fit together";
static const char WRONG_LAYOUT[] = "strides the operation cannot take";
static const char WRONG_PARAM[] = "a parameter out of range";
static const char TOO_LARGE[] = "more scratch memory than is allowed";

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

static uint64_t unit(const struct op_args *a, const struct wire_tensor *t)
{
	return a->env->types->bytes[t->type];
}

static uint64_t row_bytes(const struct graph_types *types, const struct wire_tensor *t)
{
	return (uint64_t)t->ne[0] / types->block[t->type] * types->bytes[t->type];
}

int64_t tensor_elems(const struct wire_tensor *t)
{
	if (tensor_empty(t)) /* whose other sizes nobody has multiplied yet */
		return 0;
	return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}

static bool is_type(const struct wire_tensor *t, uint64_t set)
{
	return set >> t->type & 1;
}

static bool is_f32(const struct wire_tensor *t)
{
	return t->type == OP_F32;
}

/* Elements of a row follow each other. */
static bool packed(const struct op_args *a, const struct wire_tensor *t)
{
	return t->nb[0] == unit(a, t);
}

/* The stride of dimension @i is what it is without gaps below. */
static bool tight(const struct wire_tensor *t, int i)
{
	return t->nb[i] == t->nb[i - 1] * (uint64_t)t->ne[i - 1];
}

/* Row r lies at r * nb[1], for kernels that count rows without regard to the higher dimensions. */
static bool flat_rows(const struct wire_tensor *t)
{
	return (t->ne[2] == 1 && t->ne[3] == 1) || (tight(t, 2) && (t->ne[3] == 1 || tight(t, 3)));
}

/* Without gaps, each stride exactly, even of dimensions with one element. */
static bool strict(const struct op_args *a, const struct wire_tensor *t)
{
	return packed(a, t) && t->nb[1] == row_bytes(a->env->types, t) && tight(t, 2) &&
	       tight(t, 3);
}

/* Without gaps; strides nobody multiplies with anything but 0 may be anything. */
bool tensor_dense(const struct graph_types *types, const struct wire_tensor *t)
{
	return t->nb[0] == types->bytes[t->type] &&
	       ((t->ne[1] == 1 && t->ne[2] == 1 && t->ne[3] == 1) ||
		(t->nb[1] == row_bytes(types, t) && flat_rows(t)));
}

static bool dense(const struct op_args *a, const struct wire_tensor *t)
{
	return tensor_dense(a->env->types, t);
}

/* What ggml itself calls contiguous: the strides of dimensions with one element do not count. */
static bool loosely_dense(const struct op_args *a, const struct wire_tensor *t)
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
static bool fits_dense(const struct op_args *a, const struct wire_tensor *t)
{
	uint64_t extent;

	return tensor_extent(a->env->types, t, &extent) &&
	       (uint64_t)tensor_elems(t) / a->env->types->block[t->type] * unit(a, t) <= extent;
}

static bool rising(const struct wire_tensor *t)
{
	return t->nb[0] <= t->nb[1] && t->nb[1] <= t->nb[2] && t->nb[2] <= t->nb[3];
}

static bool scalar(const struct wire_tensor *t)
{
	return tensor_elems(t) == 1;
}

/* ---- questions about several ---- */

static bool shape_is(const struct wire_tensor *t, int64_t n0, int64_t n1, int64_t n2, int64_t n3)
{
	return t->ne[0] == n0 && t->ne[1] == n1 && t->ne[2] == n2 && t->ne[3] == n3;
}

static bool same_shape(const struct wire_tensor *x, const struct wire_tensor *y)
{
	return shape_is(x, y->ne[0], y->ne[1], y->ne[2], y->ne[3]);
}

static bool divides(int64_t part, int64_t whole)
{
	return part > 0 && whole % part == 0;
}

static bool repeats(const struct wire_tensor *small, const struct wire_tensor *big)
{
	return divides(small->ne[0], big->ne[0]) && divides(small->ne[1], big->ne[1]) &&
	       divides(small->ne[2], big->ne[2]) && divides(small->ne[3], big->ne[3]);
}

static bool in_range(int64_t v, int64_t low, int64_t high)
{
	return v >= low && v <= high;
}

static float float_param(const struct op_args *a, int i)
{
	float f;

	memcpy(&f, &a->dst->params[i], sizeof(f));
	return f;
}

/* Do the first and the last of @n consecutive parameters, and all between, lie in the range? */
static bool params_in(const struct op_args *a, int first, int n, int64_t low, int64_t high)
{
	for (int i = first; i < first + n; i++)
		if (!in_range(a->dst->params[i], low, high))
			return false;
	return true;
}

/* ---- the rules ---- */

static const char *check_none(const struct op_args *a)
{
	(void)a;
	return NULL;
}

/* Back ends that fuse nodes look through views and take the shapes for what ggml's constructors
 * make of them.  A view of a sort picks columns: the rows are written as those of the sort. */
static const char *check_view(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	if (x->op != WIRE_T_ARGSORT && x->op != WIRE_T_TOP_K)
		return NULL;
	NEED(x->type == d->type && packed(a, d) && d->ne[0] <= x->ne[0], WRONG_SHAPE);
	for (int i = 1; i < WIRE_MAX_DIMS; i++)
		NEED(d->ne[i] == x->ne[i] && (d->ne[i] == 1 || d->nb[i] == x->nb[i]), WRONG_SHAPE);
	return NULL;
}

static const char *check_reshape(const struct op_args *a)
{
	NEED(a->src[0]->type == a->dst->type, WRONG_TYPE);
	NEED(tensor_elems(a->src[0]) == tensor_elems(a->dst), WRONG_SHAPE);
	NEED(loosely_dense(a, a->src[0]) && loosely_dense(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

/* PERMUTE, TRANSPOSE: the same dimensions, each with its stride, in another order. */
static const char *check_permute(const struct op_args *a)
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

/* Element by element from one tensor of any strides to one of the same shape. */
static const char *check_unary_f32(const struct op_args *a)
{
	NEED(is_f32(a->src[0]) && is_f32(a->dst), WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst), WRONG_SHAPE);
	return NULL;
}

static const char *check_rows_f32(const struct op_args *a)
{
	const char *why = check_unary_f32(a);

	NEED(!why, why);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_map(const struct op_args *a)
{
	NEED(a->src[0]->type == a->dst->type && is_type(a->dst, FLOATS), WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_unary(const struct op_args *a)
{
	uint32_t op = (uint32_t)a->dst->params[0];
	const char *why = check_map(a);

	NEED(!why, why);
	if (op == WIRE_UNARY_XIELU)
		NEED(flat_rows(a->src[0]) && flat_rows(a->dst), WRONG_LAYOUT);
	if (op == WIRE_UNARY_GELU || op == WIRE_UNARY_GELU_QUICK || op == WIRE_UNARY_GELU_ERF ||
	    op == WIRE_UNARY_SILU)
		NEED(a->dst->type != OP_BF16 || a->env->types->bf16_maps, WRONG_TYPE);
	return NULL;
}

static const char *check_flat_map(const struct op_args *a)
{
	NEED(a->src[0]->type == a->dst->type && (is_f32(a->dst) || a->dst->type == OP_F16),
	     WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst) && flat_rows(a->src[0]) && flat_rows(a->dst),
	     WRONG_LAYOUT);
	return NULL;
}

static const char *check_silu_back(const struct op_args *a)
{
	const char *why = check_flat_map(a);

	NEED(!why, why);
	NEED(a->src[1]->type == a->dst->type, WRONG_TYPE);
	NEED(same_shape(a->src[1], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[1]) && flat_rows(a->src[1]), WRONG_LAYOUT);
	return NULL;
}

static const char *check_glu(const struct op_args *a)
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
static const char *check_binary(const struct op_args *a)
{
	uint32_t x = a->src[0]->type, y = a->src[1]->type, d = a->dst->type;

	NEED(is_type(a->src[0], FLOATS), WRONG_TYPE);
	NEED((x == y && x == d) || (y == OP_F32 && (d == x || d == OP_F32)), WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst) && repeats(a->src[1], a->src[0]), WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_add_id(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *ids = a->src[2];

	NEED(is_f32(x) && is_f32(y) && is_f32(a->dst) && ids->type == OP_I32, WRONG_TYPE);
	NEED(same_shape(x, a->dst) && y->ne[0] == x->ne[0] && y->ne[2] == 1 && y->ne[3] == 1 &&
		     shape_is(ids, x->ne[1], x->ne[2], 1, 1),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, y) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_add1(const struct op_args *a)
{
	const char *why = check_map(a);

	NEED(!why, why);
	NEED(is_f32(a->src[1]) || a->src[1]->type == a->dst->type, WRONG_TYPE);
	NEED(scalar(a->src[1]), WRONG_SHAPE);
	return NULL;
}

/* ACC, SET: src[1] goes into a view of the result, given by parameters. */
static const char *check_set(const struct op_args *a)
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

static const char *check_sum(const struct op_args *a)
{
	NEED(is_type(a->src[0], FLOATS) && a->dst->type == a->src[0]->type, WRONG_TYPE);
	NEED(scalar(a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[0]), WRONG_LAYOUT);
	return NULL;
}

static const char *check_sum_rows(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0];

	NEED(is_f32(x) && is_f32(a->dst), WRONG_TYPE);
	NEED(shape_is(a->dst, 1, x->ne[1], x->ne[2], x->ne[3]), WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_argmax(const struct op_args *a)
{
	NEED(is_f32(a->src[0]) && a->dst->type == OP_I32, WRONG_TYPE);
	NEED(a->src[0]->ne[2] == 1 && a->src[0]->ne[3] == 1 &&
		     shape_is(a->dst, a->src[0]->ne[1], 1, 1, 1),
	     WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_count_equal(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0];

	NEED(x->type == OP_I32 && a->src[1]->type == OP_I32 && a->dst->type == OP_I64, WRONG_TYPE);
	NEED(same_shape(x, a->src[1]) && scalar(a->dst), WRONG_SHAPE);
	NEED(x->ne[2] == 1 && x->ne[3] == 1, WRONG_SHAPE); /* the kernel miscounts otherwise */
	return NULL;
}

static const char *check_repeat(const struct op_args *a)
{
	uint64_t types = FLOATS | TYPE_BIT(OP_I16) | TYPE_BIT(OP_I32);

	NEED(is_type(a->src[0], types) && a->dst->type == a->src[0]->type, WRONG_TYPE);
	NEED(repeats(a->src[0], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_repeat_back(const struct op_args *a)
{
	NEED(is_f32(a->src[0]) && is_f32(a->dst), WRONG_TYPE);
	NEED(repeats(a->dst, a->src[0]), WRONG_SHAPE);
	NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_concat(const struct op_args *a)
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

static const char *check_norm(const struct op_args *a)
{
	const char *why = check_unary_f32(a);

	NEED(!why, why);
	NEED(float_param(a, 0) >= 0.0f, WRONG_PARAM); /* not a NaN either */
	if (a->dst->op == WIRE_T_RMS_NORM)
		NEED(packed(a, a->src[0]) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_rms_norm_back(const struct op_args *a)
{
	const char *why = check_rows_f32(a);

	NEED(!why, why);
	NEED(is_f32(a->src[1]), WRONG_TYPE);
	NEED(same_shape(a->src[1], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->src[1]), WRONG_LAYOUT);
	return NULL;
}

static const char *check_group_norm(const struct op_args *a)
{
	const char *why = check_rows_f32(a);

	NEED(!why, why);
	NEED(in_range(a->dst->params[0], 1, a->src[0]->ne[2]), WRONG_PARAM);
	NEED(float_param(a, 1) >= 0.0f, WRONG_PARAM);
	return NULL;
}

static const char *check_mul_mat(const struct op_args *a)
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

static const char *check_mul_mat_id(const struct op_args *a)
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

static const char *check_out_prod(const struct op_args *a)
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

static const char *check_dense_f32(const struct op_args *a)
{
	const char *why = check_unary_f32(a);

	NEED(!why, why);
	NEED(dense(a, a->src[0]) && dense(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_scale(const struct op_args *a)
{
	if (a->dst->type != OP_BF16)
		return check_dense_f32(a);
	NEED(a->env->types->bf16_maps && a->src[0]->type == OP_BF16, WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst), WRONG_SHAPE);
	NEED(dense(a, a->src[0]) && dense(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_copy_same_type(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	/* Of quantized rows the kernel counts bytes wrongly where only the result is dense. */
	if (a->env->types->block[d->type] > 1 && !same_shape(x, d))
		NEED(loosely_dense(a, x) || !loosely_dense(a, d), WRONG_LAYOUT);
	return NULL;
}

static const char *check_copy(const struct op_args *a)
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

static const char *check_get_rows(const struct op_args *a)
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
static const char *check_get_rows_back(const struct op_args *a)
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
static const char *check_set_rows(const struct op_args *a)
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

static const char *check_diag(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0];

	NEED(is_f32(x) && is_f32(a->dst), WRONG_TYPE);
	NEED(x->ne[1] == 1 && shape_is(a->dst, x->ne[0], x->ne[0], x->ne[2], x->ne[3]),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_diag_mask(const struct op_args *a)
{
	const char *why = check_dense_f32(a);

	NEED(!why, why);
	NEED(in_range(a->dst->params[0], 0, 1 << 30), WRONG_PARAM);
	NEED(strict(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_soft_max(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *mask = a->src[1], *sinks = a->src[2];
	const char *why = check_rows_f32(a);

	NEED(!why, why);
	if (mask) {
		NEED(is_f32(mask) || mask->type == OP_F16, WRONG_TYPE);
		NEED(mask->ne[0] == x->ne[0] && mask->ne[1] >= x->ne[1] &&
			     divides(mask->ne[2], x->ne[2]) && divides(mask->ne[3], x->ne[3]),
		     WRONG_SHAPE);
		NEED(packed(a, mask), WRONG_LAYOUT);
	}
	if (sinks) {
		NEED(is_f32(sinks), WRONG_TYPE);
		NEED(shape_is(sinks, x->ne[2], 1, 1, 1), WRONG_SHAPE);
		NEED(packed(a, sinks), WRONG_LAYOUT);
	}
	return NULL;
}

static const char *check_soft_max_back(const struct op_args *a)
{
	const char *why = check_dense_f32(a);

	NEED(!why, why);
	NEED(is_f32(a->src[1]), WRONG_TYPE);
	NEED(same_shape(a->src[1], a->dst), WRONG_SHAPE);
	NEED(dense(a, a->src[1]), WRONG_LAYOUT);
	NEED(float_param(a, 1) == 0.0f, WRONG_PARAM);
	return NULL;
}

enum rope_mode {
	ROPE_NORMAL = 0,
	ROPE_NEOX = 2,
	ROPE_MROPE = 8,
	ROPE_VISION = 24,
	ROPE_IMROPE = 40
};

static const char *check_rope_params(const struct op_args *a)
{
	const int32_t *p = a->dst->params;
	int32_t n_dims = p[1], mode = p[2], offset = p[15];
	int64_t n = a->dst->ne[0], sections = 0;

	NEED(mode == ROPE_NORMAL || mode == ROPE_NEOX || mode == ROPE_MROPE ||
		     mode == ROPE_VISION || mode == ROPE_IMROPE,
	     WRONG_PARAM);
	NEED(n % 2 == 0 && n_dims % 2 == 0 && in_range(n_dims, 2, n), WRONG_PARAM);
	NEED(offset % 2 == 0 && in_range(offset, 0, n - n_dims), WRONG_PARAM);
	if (mode & ROPE_MROPE) {
		NEED(params_in(a, 11, 4, 0, n), WRONG_PARAM);
		for (int i = 11; i < 15; i++)
			sections += p[i];
		NEED(sections <= n && sections > p[14], WRONG_PARAM);
	}
	if (mode == ROPE_VISION)
		NEED(n_dims == n / 2 && offset == 0, WRONG_PARAM);
	return NULL;
}

/* The kernel reads a factor per pair of the whole row, also of pairs it does not turn. */
static bool factors_readable(const struct op_args *a)
{
	const struct wire_tensor *f = a->src[2];
	uint64_t want = (uint64_t)(a->dst->ne[0] / 2) * 4, bytes;

	if (a->query || (uint64_t)f->ne[0] * 4 >= want)
		return true;
	return a->env->buffer_size(a->env->ctx, f->buffer, &bytes) && f->offset <= bytes &&
	       want <= bytes - f->offset;
}

static const char *check_rope(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *pos = a->src[1], *f = a->src[2];
	const char *why = check_rope_params(a);

	NEED(!why, why);
	NEED((is_f32(x) || x->type == OP_F16) && a->dst->type == x->type && pos->type == OP_I32,
	     WRONG_TYPE);
	NEED(same_shape(x, a->dst), WRONG_SHAPE);
	NEED(shape_is(pos, a->dst->params[2] & ROPE_MROPE ? 4 * x->ne[2] : x->ne[2], 1, 1, 1),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, a->dst) && packed(a, pos), WRONG_LAYOUT);
	if (f) {
		NEED(is_f32(f), WRONG_TYPE);
		NEED(f->ne[0] >= a->dst->params[1] / 2 && packed(a, f) && factors_readable(a),
		     WRONG_SHAPE);
	}
	return NULL;
}

static const char *check_conv_transpose_1d(const struct op_args *a)
{
	const struct wire_tensor *k = a->src[0], *x = a->src[1], *d = a->dst;
	int64_t stride = d->params[0];

	NEED((is_f32(k) || k->type == OP_F16) && is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(in_range(stride, 1, MAX_CONV_PARAM), WRONG_PARAM);
	NEED(k->ne[3] == 1 && x->ne[2] == 1 && x->ne[3] == 1 && k->ne[2] == x->ne[1] &&
		     shape_is(d, (x->ne[0] - 1) * stride + k->ne[0], k->ne[1], 1, 1),
	     WRONG_SHAPE);
	NEED(packed(a, k) && packed(a, x) && packed(a, d), WRONG_LAYOUT);
	NEED(fits_dense(a, k) && fits_dense(a, x), TOO_LARGE); /* both are copied */
	return NULL;
}

static const char *check_conv_transpose_2d(const struct op_args *a)
{
	const struct wire_tensor *k = a->src[0], *x = a->src[1], *d = a->dst;
	int64_t stride = d->params[0];

	NEED((is_f32(k) || k->type == OP_F16) && is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(in_range(stride, 1, MAX_CONV_PARAM), WRONG_PARAM);
	NEED(k->ne[3] == x->ne[2] &&
		     shape_is(d, (x->ne[0] - 1) * stride + k->ne[0],
			      (x->ne[1] - 1) * stride + k->ne[1], k->ne[2], x->ne[3]),
	     WRONG_SHAPE);
	NEED(dense(a, k) && packed(a, x) && strict(a, d), WRONG_LAYOUT);
	NEED(fits_dense(a, x), TOO_LARGE);
	return NULL;
}

/* [s0 s1 p0 p1 d0 d1 is_2d]; src[0] is only a shape. */
static const char *check_im2col(const struct op_args *a)
{
	bool back = a->dst->op == WIRE_T_IM2COL_BACK;
	const struct wire_tensor *k = back ? a->src[1] : a->src[0];
	const struct wire_tensor *image = back ? a->dst : a->src[1];
	const struct wire_tensor *columns = back ? a->src[0] : a->dst;
	const int32_t *p = a->dst->params;
	bool is_2d = p[6] == 1;
	int64_t depth = (is_2d ? k->ne[1] : 1) * k->ne[0]; /* of one channel */

	NEED(is_f32(image) || (!back && image->type == OP_F16 && columns->type == OP_F16),
	     WRONG_TYPE);
	NEED(is_f32(columns) || (!back && columns->type == OP_F16), WRONG_TYPE);
	NEED(!back || is_f32(k) || k->type == OP_F16, WRONG_TYPE);
	NEED(in_range(p[0], 1, MAX_CONV_PARAM) && params_in(a, 2, 2, 0, MAX_CONV_PARAM) &&
		     in_range(p[4], 1, MAX_CONV_PARAM) && params_in(a, 6, 1, 0, 1),
	     WRONG_PARAM);
	NEED(in_range(p[1], is_2d, MAX_CONV_PARAM) && in_range(p[5], is_2d, MAX_CONV_PARAM),
	     WRONG_PARAM);
	if (is_2d)
		NEED(columns->ne[0] == image->ne[2] * depth && columns->ne[3] == image->ne[3],
		     WRONG_SHAPE);
	else
		NEED(columns->ne[0] == image->ne[1] * depth && columns->ne[2] == image->ne[2] &&
			     columns->ne[3] == 1 && image->ne[3] == 1,
		     WRONG_SHAPE);
	/* Planes without gaps; the strides between them are kept in an int. */
	NEED(strict(a, columns) && packed(a, image), WRONG_LAYOUT);
	NEED(!is_2d || image->ne[1] == 1 || tight(image, 1), WRONG_LAYOUT);
	for (int i = 1; i < WIRE_MAX_DIMS; i++)
		NEED(image->nb[i] <= INT32_MAX, WRONG_LAYOUT);
	NEED(!back || strict(a, image), WRONG_LAYOUT);
	return NULL;
}

/* [s0 s1 s2 p0 p1 p2 d0 d1 d2 channels] */
static const char *check_im2col_3d(const struct op_args *a)
{
	const struct wire_tensor *k = a->src[0], *x = a->src[1], *d = a->dst;
	int64_t channels = d->params[9], batch;

	NEED(is_f32(x) && (is_f32(d) || d->type == OP_F16), WRONG_TYPE);
	NEED(params_in(a, 0, 3, 1, MAX_CONV_PARAM) && params_in(a, 3, 3, 0, MAX_CONV_PARAM) &&
		     params_in(a, 6, 3, 1, MAX_CONV_PARAM) && channels > 0,
	     WRONG_PARAM);
	batch = x->ne[3] / channels;
	NEED(divides(channels, x->ne[3]) && divides(batch, d->ne[3]) &&
		     in_range(k->ne[0] * k->ne[1], 1, INT32_MAX) &&
		     in_range(k->ne[0] * k->ne[1] * k->ne[2], 1, INT32_MAX) &&
		     d->ne[0] == k->ne[0] * k->ne[1] * k->ne[2] * channels,
	     WRONG_SHAPE);
	NEED(packed(a, x) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

static const char *check_col2im_1d(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;
	int64_t stride = d->params[0], channels = d->params[1], pad = d->params[2], kernel;

	NEED(is_type(x, FLOATS) && d->type == x->type, WRONG_TYPE);
	NEED(in_range(stride, 1, MAX_CONV_PARAM) && channels > 0 && pad >= 0, WRONG_PARAM);
	NEED(divides(channels, x->ne[0]) && x->ne[2] == 1 && x->ne[3] == 1, WRONG_SHAPE);
	kernel = x->ne[0] / channels;
	NEED(shape_is(d, (x->ne[1] - 1) * stride + kernel - 2 * pad, channels, 1, 1), WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

static const char *check_conv_params(const struct op_args *a, int n)
{
	NEED(params_in(a, 0, n, 1, MAX_CONV_PARAM) && params_in(a, n, n, 0, MAX_CONV_PARAM) &&
		     params_in(a, 2 * n, n, 1, MAX_CONV_PARAM),
	     WRONG_PARAM);
	return NULL;
}

/* One patch of the image and one row of results per patch must fit ggml's scratch memory. */
static bool patch_fits(const struct op_args *a, const struct wire_tensor *kernel, int64_t out)
{
	return out > 0 &&
	       tensor_elems(kernel) / out * (int64_t)unit(a, kernel) + out * 4 <= OP_CONV_SCRATCH;
}

static const char *check_conv_2d(const struct op_args *a)
{
	const struct wire_tensor *k = a->src[0], *x = a->src[1], *d = a->dst;
	const char *why = check_conv_params(a, 2);

	NEED(!why, why);
	NEED((is_f32(k) || k->type == OP_F16) && is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(k->ne[2] == x->ne[2] && d->ne[2] == k->ne[3] && d->ne[3] == x->ne[3], WRONG_SHAPE);
	NEED(loosely_dense(a, k), WRONG_LAYOUT);
	NEED(patch_fits(a, k, k->ne[3]), TOO_LARGE);
	return NULL;
}

static const char *check_conv_3d(const struct op_args *a)
{
	const struct wire_tensor *k = a->src[0], *x = a->src[1], *d = a->dst;
	int64_t c = d->params[9], n = d->params[10], oc = d->params[11];
	const char *why = check_conv_params(a, 3);

	NEED(!why, why);
	NEED(c > 0 && n > 0 && oc > 0, WRONG_PARAM);
	NEED((is_f32(k) || k->type == OP_F16) && is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(k->ne[3] == c * oc && x->ne[3] == c * n && d->ne[3] == oc * n, WRONG_SHAPE);
	NEED(loosely_dense(a, k), WRONG_LAYOUT);
	NEED(patch_fits(a, k, oc), TOO_LARGE);
	return NULL;
}

static const char *check_conv_2d_dw(const struct op_args *a)
{
	const struct wire_tensor *k = a->src[0], *x = a->src[1], *d = a->dst;
	bool channels_first = x->nb[2] == 4 && x->nb[0] > x->nb[2] && x->nb[1] > x->nb[0] &&
			      k->nb[0] >= k->nb[2] && k->nb[1] >= k->nb[0];
	const char *why = check_conv_params(a, 2);

	NEED(!why, why);
	NEED((is_f32(k) || k->type == OP_F16) && is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(k->ne[2] == 1 && k->ne[3] == x->ne[2] && d->ne[2] == x->ne[2] && d->ne[3] == x->ne[3],
	     WRONG_SHAPE);
	NEED(loosely_dense(a, x) || channels_first, WRONG_LAYOUT);
	NEED(fits_dense(a, k) && fits_dense(a, x) && fits_dense(a, d), WRONG_LAYOUT);
	return NULL;
}

/* [kind k0 s0 p0] */
static const char *check_pool_1d(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED((is_f32(x) || x->type == OP_F16) && is_f32(d), WRONG_TYPE);
	NEED(params_in(a, 0, 1, 0, 1) && params_in(a, 1, 2, 1, MAX_CONV_PARAM) &&
		     params_in(a, 3, 1, 0, MAX_CONV_PARAM) &&
		     d->params[1] <= x->ne[0] + 2 * (int64_t)d->params[3],
	     WRONG_PARAM);
	NEED(d->ne[1] == x->ne[1] && d->ne[2] == x->ne[2] && d->ne[3] == x->ne[3] &&
		     d->ne[0] * d->params[2] <= 1 << 30,
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, d) && flat_rows(x) && flat_rows(d), WRONG_LAYOUT);
	return NULL;
}

/* [kind k0 k1 s0 s1 p0 p1] */
static const char *check_pool_2d(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED((is_f32(x) || x->type == OP_F16) && is_f32(d), WRONG_TYPE);
	NEED(params_in(a, 0, 1, 0, 1) && params_in(a, 1, 4, 1, MAX_CONV_PARAM) &&
		     params_in(a, 5, 2, 0, MAX_CONV_PARAM) &&
		     d->params[1] <= x->ne[0] + 2 * (int64_t)d->params[5] &&
		     d->params[2] <= x->ne[1] + 2 * (int64_t)d->params[6] &&
		     d->params[1] * (int64_t)d->params[2] <= INT32_MAX,
	     WRONG_PARAM);
	NEED(d->ne[2] == x->ne[2] && d->ne[3] == x->ne[3] && d->ne[0] * d->params[3] <= 1 << 30 &&
		     d->ne[1] * d->params[4] <= 1 << 30,
	     WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

static const char *check_upscale(const struct op_args *a)
{
	NEED(is_f32(a->src[0]) && is_f32(a->dst), WRONG_TYPE);
	NEED(in_range(a->dst->params[0] & 0xff, 0, 2) && in_range(a->dst->params[0], 0, 0x3ff),
	     WRONG_PARAM);
	for (int i = 0; i < WIRE_MAX_DIMS; i++) /* beyond, source positions round out of range */
		NEED(a->dst->ne[i] <= MAX_PLANE && a->src[0]->ne[i] <= MAX_PLANE, WRONG_SHAPE);
	return NULL;
}

/* [left0 right0 left1 right1 ... circular] */
static const char *check_pad(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED(is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(params_in(a, 0, 8, 0, INT32_MAX), WRONG_PARAM);
	for (int i = 0; i < WIRE_MAX_DIMS; i++) {
		NEED(d->ne[i] == x->ne[i] + d->params[2 * i] + d->params[2 * i + 1], WRONG_SHAPE);
		NEED(!d->params[8] || d->params[2 * i] <= x->ne[i], WRONG_PARAM);
	}
	NEED(dense(a, d), WRONG_LAYOUT);
	return NULL;
}

static const char *check_pad_reflect_1d(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED(is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(params_in(a, 0, 2, 0, x->ne[0] - 1), WRONG_PARAM);
	NEED(shape_is(d, x->ne[0] + d->params[0] + d->params[1], x->ne[1], x->ne[2], x->ne[3]),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, d), WRONG_LAYOUT);
	return NULL;
}

static const char *check_roll(const struct op_args *a)
{
	const char *why = check_rows_f32(a);

	NEED(!why, why);
	for (int i = 0; i < WIRE_MAX_DIMS; i++)
		NEED(in_range(a->dst->params[i], 1 - a->dst->ne[i], a->dst->ne[i] - 1),
		     WRONG_PARAM);
	return NULL;
}

static const char *check_arange(const struct op_args *a)
{
	float n = (float_param(a, 1) - float_param(a, 0)) / float_param(a, 2);
	int64_t steps;

	NEED(is_f32(a->dst), WRONG_TYPE);
	NEED(n > 0.0f && n <= (float)(1 << 24), WRONG_PARAM); /* not a NaN either */
	steps = (int64_t)n;
	steps += (float)steps < n;
	NEED(tensor_elems(a->dst) == steps, WRONG_SHAPE);
	NEED(dense(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_timestep_embedding(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED(is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(in_range(d->params[0], 1, d->ne[0]), WRONG_PARAM);
	NEED(x->ne[1] == 1 && x->ne[2] == 1 && x->ne[3] == 1 &&
		     shape_is(d, d->ne[0], x->ne[0], 1, 1),
	     WRONG_SHAPE);
	NEED(packed(a, x) && packed(a, d), WRONG_LAYOUT);
	return NULL;
}

/* Sorting goes wild when the data changes under it. */
static bool apart(const struct op_args *a, const struct wire_tensor *x, const struct wire_tensor *y)
{
	uint64_t nx, ny;

	return a->query || x->buffer != y->buffer ||
	       (tensor_extent(a->env->types, x, &nx) && tensor_extent(a->env->types, y, &ny) &&
		(x->offset + nx <= y->offset || y->offset + ny <= x->offset));
}

static const char *check_sort(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED(is_f32(x) && d->type == OP_I32, WRONG_TYPE);
	NEED(d->ne[1] == x->ne[1] && d->ne[2] == x->ne[2] && d->ne[3] == x->ne[3], WRONG_SHAPE);
	if (d->op == WIRE_T_ARGSORT) {
		NEED(d->ne[0] == x->ne[0], WRONG_SHAPE);
		NEED(in_range(d->params[0], 0, 1), WRONG_PARAM);
	} else {
		NEED(in_range(d->ne[0], 1, x->ne[0]), WRONG_SHAPE);
	}
	NEED(packed(a, x) && packed(a, d) && flat_rows(x) && flat_rows(d), WRONG_LAYOUT);
	NEED(apart(a, x, d), "a sort into its own source");
	return NULL;
}

static const char *check_tri(const struct op_args *a)
{
	const char *why = check_rows_f32(a);

	NEED(!why, why);
	NEED(dense(a, a->src[0]), WRONG_LAYOUT);
	NEED(in_range(a->dst->params[0], 0, 3), WRONG_PARAM);
	return NULL;
}

static const char *check_fill(const struct op_args *a)
{
	NEED((is_f32(a->dst) || a->dst->type == OP_F16) && a->src[0]->type == a->dst->type,
	     WRONG_TYPE);
	NEED(same_shape(a->src[0], a->dst), WRONG_SHAPE);
	NEED(packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_flash_extras(const struct op_args *a)
{
	const struct wire_tensor *q = a->src[0], *k = a->src[1], *mask = a->src[3],
				 *sinks = a->src[4];

	if (mask) {
		NEED(mask->type == OP_F16, WRONG_TYPE);
		NEED(mask->ne[0] >= k->ne[1] && mask->ne[1] >= q->ne[1] &&
			     divides(mask->ne[2], q->ne[2]) && divides(mask->ne[3], q->ne[3]),
		     WRONG_SHAPE);
		NEED(packed(a, mask), WRONG_LAYOUT);
	}
	if (sinks) {
		NEED(is_f32(sinks), WRONG_TYPE);
		NEED(shape_is(sinks, q->ne[2], 1, 1, 1), WRONG_SHAPE);
		NEED(packed(a, sinks), WRONG_LAYOUT);
	}
	return NULL;
}

static const char *check_flash_attn(const struct op_args *a)
{
	const struct wire_tensor *q = a->src[0], *k = a->src[1], *v = a->src[2], *d = a->dst;

	NEED(is_f32(q) && is_f32(d) && is_type(k, FLOATS | QUANTS) && is_type(v, FLOATS | QUANTS),
	     WRONG_TYPE);
	NEED(k->ne[0] == q->ne[0] && v->ne[1] == k->ne[1] && divides(k->ne[2], q->ne[2]) &&
		     divides(v->ne[2], q->ne[2]) && divides(k->ne[3], q->ne[3]) &&
		     divides(v->ne[3], q->ne[3]) &&
		     shape_is(d, v->ne[0], q->ne[2], q->ne[1], q->ne[3]),
	     WRONG_SHAPE);
	NEED(packed(a, q) && packed(a, k) && packed(a, v) && strict(a, d), WRONG_LAYOUT);
	NEED(k->ne[0] <= MAX_HEAD && v->ne[0] <= MAX_HEAD, TOO_LARGE);
	NEED(d->params[3] == 0 || d->params[3] == 10, WRONG_PARAM); /* precision: default, F32 */
	return check_flash_extras(a);
}

static const char *check_ssm_conv(const struct op_args *a)
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

static const char *check_ssm_scan(const struct op_args *a)
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

static const char *check_win_part(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;
	int64_t nx = d->params[0], ny = d->params[1], w = d->params[2];

	NEED(is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(in_range(w, 1, MAX_CONV_PARAM) && in_range(nx, 1, MAX_CONV_PARAM / 4) &&
		     in_range(ny, 1, MAX_CONV_PARAM / 4),
	     WRONG_PARAM);
	NEED(x->ne[3] == 1 && shape_is(d, x->ne[0], w, w, nx * ny), WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

static const char *check_win_unpart(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;
	int64_t w = d->params[0], nx, ny;

	NEED(is_f32(x) && is_f32(d), WRONG_TYPE);
	NEED(in_range(w, 1, MAX_CONV_PARAM), WRONG_PARAM);
	nx = (d->ne[1] + w - 1) / w;
	ny = (d->ne[2] + w - 1) / w;
	NEED(nx <= INT32_MAX && d->ne[3] == 1 && shape_is(x, d->ne[0], w, w, nx * ny), WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

static const char *check_get_rel_pos(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *d = a->dst;

	NEED(x->type == OP_F16 && d->type == OP_F16, WRONG_TYPE);
	NEED(x->ne[1] == d->ne[1] + d->ne[2] - 1 && x->ne[2] == 1 && x->ne[3] == 1 &&
		     d->ne[0] == x->ne[0] && d->ne[3] == 1,
	     WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

static const char *check_add_rel_pos(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *w = a->src[1], *h = a->src[2], *d = a->dst;

	NEED(is_f32(x) && is_f32(w) && is_f32(h) && is_f32(d), WRONG_TYPE);
	NEED(same_shape(x, d) && same_shape(w, h) && x->ne[3] == 1 && w->ne[3] == x->ne[2] &&
		     w->ne[0] * w->ne[0] == x->ne[0] && w->ne[1] * w->ne[2] == x->ne[1],
	     WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, w) && strict(a, h) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

/* RWKV_WKV6, GATED_LINEAR_ATTN, RWKV_WKV7: operands [S, H, T], a state [S * S * H, n], and a result
 * that holds T rows of output, then the new state. */
static const char *check_recurrent(const struct op_args *a)
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

static const char *check_solve_tri(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1], *d = a->dst;

	NEED(is_f32(x) && is_f32(y) && is_f32(d), WRONG_TYPE);
	NEED(x->ne[0] == x->ne[1] && y->ne[1] == x->ne[1] && y->ne[2] == x->ne[2] &&
		     y->ne[3] == x->ne[3] && same_shape(y, d),
	     WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, y) && strict(a, d), WRONG_LAYOUT);
	return NULL;
}

static const char *check_gated_delta_net(const struct op_args *a)
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

static const char *check_lightning_indexer(const struct op_args *a)
{
	const struct wire_tensor *q = a->src[0], *k = a->src[1], *w = a->src[2], *m = a->src[3];
	int64_t kv = k->ne[2], tokens = q->ne[2], streams = q->ne[3];

	NEED(is_f32(q) && is_type(k, FLOATS | QUANTS) && is_f32(w) && m->type == OP_F16 &&
		     is_f32(a->dst),
	     WRONG_TYPE);
	NEED(shape_is(k, q->ne[0], 1, kv, streams) && shape_is(w, q->ne[1], tokens, 1, streams) &&
		     shape_is(m, kv, tokens, 1, m->ne[3]) && divides(m->ne[3], streams) &&
		     shape_is(a->dst, kv, tokens, 1, streams),
	     WRONG_SHAPE);
	for (int i = 0; i < 4; i++)
		NEED(packed(a, a->src[i]), WRONG_LAYOUT);
	NEED(packed(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

static const char *check_hc_comb(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0];

	NEED(is_f32(x) && is_f32(a->src[1]) && is_f32(a->src[2]) && is_f32(a->dst), WRONG_TYPE);
	NEED(shape_is(x, 24, x->ne[1], 1, 1) && a->src[1]->ne[0] >= 3 && a->src[2]->ne[0] == 24 &&
		     shape_is(a->dst, 4, 4, x->ne[1], 1),
	     WRONG_SHAPE);
	NEED(in_range(a->dst->params[1], 1, MAX_ITERATIONS), WRONG_PARAM);
	return NULL;
}

static const char *check_hc_pre(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *w = a->src[1];

	NEED(is_f32(x) && is_f32(w) && is_f32(a->dst), WRONG_TYPE);
	NEED(x->ne[3] == 1 && shape_is(a->dst, x->ne[0], x->ne[2], 1, 1) &&
		     (a->dst->params[1] ? same_shape(w, x) : shape_is(w, x->ne[1], x->ne[2], 1, 1)),
	     WRONG_SHAPE);
	return NULL;
}

static const char *check_hc_post(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *r = a->src[1], *p = a->src[2], *c = a->src[3];

	NEED(is_f32(x) && is_f32(r) && is_f32(p) && is_f32(a->dst) && (!c || is_f32(c)),
	     WRONG_TYPE);
	NEED(shape_is(r, x->ne[0], r->ne[1], x->ne[1], 1) &&
		     shape_is(x, x->ne[0], x->ne[1], 1, 1) &&
		     shape_is(p, r->ne[1], x->ne[1], 1, 1) && same_shape(r, a->dst) &&
		     (!c || shape_is(c, r->ne[1], r->ne[1], x->ne[1], 1)),
	     WRONG_SHAPE);
	return NULL;
}

/* The mean over all rows, of which each thread keeps one. */
static const char *check_cross_entropy(const struct op_args *a)
{
	const struct wire_tensor *x = a->src[0], *y = a->src[1];

	NEED(is_f32(x) && is_f32(y) && is_f32(a->dst), WRONG_TYPE);
	NEED(same_shape(x, y) && scalar(a->dst), WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, y), WRONG_LAYOUT);
	return NULL;
}

static const char *check_cross_entropy_back(const struct op_args *a)
{
	const struct wire_tensor *grad = a->src[0], *x = a->src[1], *y = a->src[2];

	NEED(is_f32(grad) && is_f32(x) && is_f32(y) && is_f32(a->dst), WRONG_TYPE);
	NEED(scalar(grad) && same_shape(x, y) && same_shape(x, a->dst), WRONG_SHAPE);
	NEED(strict(a, x) && strict(a, y) && strict(a, a->dst), WRONG_LAYOUT);
	return NULL;
}

/* OPT_STEP_ADAMW, OPT_STEP_SGD: the weights are both the first source and the result; what else is
 * as large goes along by their strides. */
static const char *check_opt_step(const struct op_args *a)
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

/* ---- the table ---- */

#define S0    0x1
#define S01   0x3
#define S012  0x7
#define SIZES (OP_BIG | OP_EMPTY)

static const struct op_rule op_rules[WIRE_NUM_TENSOR_OPS] = {
	[WIRE_T_NONE] = {0, 0, OP_VIEW | SIZES, .check = check_none},
	[WIRE_T_DUP] = {S0, 0, OP_EMPTY | OP_COPIES, .check = check_copy},
	[WIRE_T_ADD] = {S01, 0, SIZES, .check = check_binary},
	[WIRE_T_ADD_ID] = {S012, 0, OP_EMPTY, 2, OP_LIMIT_SRC1_ROWS, check_add_id},
	[WIRE_T_ADD1] = {S01, 0, OP_EMPTY, .check = check_add1},
	[WIRE_T_ACC] = {S01, 0, 0, .check = check_set},
	[WIRE_T_SUB] = {S01, 0, SIZES, .check = check_binary},
	[WIRE_T_MUL] = {S01, 0, SIZES, .check = check_binary},
	[WIRE_T_DIV] = {S01, 0, SIZES, .check = check_binary},
	[WIRE_T_SQR] = {S0, 0, SIZES, .check = check_map},
	[WIRE_T_SQRT] = {S0, 0, SIZES, .check = check_map},
	[WIRE_T_LOG] = {S0, 0, SIZES, .check = check_map},
	[WIRE_T_SIN] = {S0, 0, SIZES, .check = check_map},
	[WIRE_T_COS] = {S0, 0, SIZES, .check = check_map},
	[WIRE_T_SUM] = {S0, 0, OP_BIG, .check = check_sum},
	[WIRE_T_SUM_ROWS] = {S0, 0, SIZES, .check = check_sum_rows},
	[WIRE_T_CUMSUM] = {S0, 0, OP_EMPTY, .check = check_rows_f32},
	[WIRE_T_MEAN] = {S0, 0, SIZES, .check = check_sum_rows},
	[WIRE_T_ARGMAX] = {S0, 0, OP_EMPTY, .check = check_argmax},
	[WIRE_T_COUNT_EQUAL] = {S01, 0, 0, .check = check_count_equal},
	[WIRE_T_REPEAT] = {S0, 0, OP_EMPTY, .check = check_repeat},
	[WIRE_T_REPEAT_BACK] = {S0, 0, 0, .check = check_repeat_back},
	[WIRE_T_CONCAT] = {S01, 0, SIZES | OP_COPIES, .check = check_concat},
	[WIRE_T_SILU_BACK] = {S01, 0, 0, .check = check_silu_back},
	[WIRE_T_NORM] = {S0, 0, SIZES | OP_COPIES, .check = check_norm},
	[WIRE_T_RMS_NORM] = {S0, 0, SIZES | OP_COPIES, .check = check_norm},
	[WIRE_T_RMS_NORM_BACK] = {S01, 0, 0, .check = check_rms_norm_back},
	[WIRE_T_GROUP_NORM] = {S0, 0, 0, .check = check_group_norm},
	[WIRE_T_L2_NORM] = {S0, 0, SIZES | OP_COPIES, .check = check_norm},
	[WIRE_T_MUL_MAT] = {S01, 0, SIZES, .check = check_mul_mat},
	[WIRE_T_MUL_MAT_ID] = {S012, 0, SIZES, 2, OP_LIMIT_SRC0_NE2, check_mul_mat_id},
	[WIRE_T_OUT_PROD] = {S01, 0, OP_ROW_SCRATCH, .check = check_out_prod},
	[WIRE_T_SCALE] = {S0, 0, SIZES, .check = check_scale},
	[WIRE_T_SET] = {S01, 0, 0, .check = check_set},
	[WIRE_T_CPY] = {S01, 0, OP_EMPTY, .check = check_copy},
	[WIRE_T_CONT] = {S0, 0, OP_EMPTY | OP_COPIES, .check = check_copy},
	[WIRE_T_RESHAPE] = {S0, 0, OP_VIEW | SIZES, .check = check_reshape},
	[WIRE_T_VIEW] = {S0, 0, OP_VIEW | SIZES, .check = check_view},
	[WIRE_T_PERMUTE] = {S0, 0, OP_VIEW | SIZES, .check = check_permute},
	[WIRE_T_TRANSPOSE] = {S0, 0, OP_VIEW | SIZES, .check = check_permute},
	[WIRE_T_GET_ROWS] = {S01, 0, SIZES, 1, OP_LIMIT_SRC0_ROWS, check_get_rows},
	[WIRE_T_GET_ROWS_BACK] = {S01, 0, 0, 1, OP_LIMIT_DST_ROWS, check_get_rows_back},
	[WIRE_T_SET_ROWS] = {S01, 4, OP_BIG | OP_ROW_SCRATCH | OP_NO_ROWS, 1, OP_LIMIT_DST_ROWS,
			     check_set_rows},
	[WIRE_T_DIAG] = {S0, 0, 0, .check = check_diag},
	[WIRE_T_DIAG_MASK_INF] = {S0, 0, 0, .check = check_diag_mask},
	[WIRE_T_DIAG_MASK_ZERO] = {S0, 0, 0, .check = check_diag_mask},
	[WIRE_T_SOFT_MAX] = {S0, 6, SIZES | OP_ROW_SCRATCH, .check = check_soft_max},
	[WIRE_T_SOFT_MAX_BACK] = {S01, 0, 0, .check = check_soft_max_back},
	[WIRE_T_ROPE] = {S01, 4, OP_EMPTY | OP_ROW_SCRATCH, .check = check_rope},
	[WIRE_T_ROPE_BACK] = {S01, 4, OP_ROW_SCRATCH, .check = check_rope},
	[WIRE_T_CLAMP] = {S0, 0, OP_EMPTY, .check = check_flat_map},
	[WIRE_T_CONV_TRANSPOSE_1D] = {S01, 0, 0, .check = check_conv_transpose_1d},
	[WIRE_T_IM2COL] = {S01, 0, 0, .check = check_im2col},
	[WIRE_T_IM2COL_BACK] = {S01, 0, 0, .check = check_im2col},
	[WIRE_T_IM2COL_3D] = {S01, 0, OP_EMPTY, .check = check_im2col_3d},
	[WIRE_T_COL2IM_1D] = {S0, 0, 0, .check = check_col2im_1d},
	[WIRE_T_CONV_2D] = {S01, 0, 0, .check = check_conv_2d},
	[WIRE_T_CONV_3D] = {S01, 0, 0, .check = check_conv_3d},
	[WIRE_T_CONV_2D_DW] = {S01, 0, 0, .check = check_conv_2d_dw},
	[WIRE_T_CONV_TRANSPOSE_2D] = {S01, 0, 0, .check = check_conv_transpose_2d},
	[WIRE_T_POOL_1D] = {S0, 0, 0, .check = check_pool_1d},
	[WIRE_T_POOL_2D] = {S0, 0, 0, .check = check_pool_2d},
	[WIRE_T_UPSCALE] = {S0, 0, 0, .check = check_upscale},
	[WIRE_T_PAD] = {S0, 0, 0, .check = check_pad},
	[WIRE_T_PAD_REFLECT_1D] = {S0, 0, 0, .check = check_pad_reflect_1d},
	[WIRE_T_ROLL] = {S0, 0, 0, .check = check_roll},
	[WIRE_T_ARANGE] = {0, 0, 0, .check = check_arange},
	[WIRE_T_TIMESTEP_EMBEDDING] = {S0, 0, 0, .check = check_timestep_embedding},
	[WIRE_T_ARGSORT] = {S0, 0, OP_EMPTY, .check = check_sort},
	[WIRE_T_TOP_K] = {S0, 0, OP_ROW_SCRATCH, .check = check_sort},
	[WIRE_T_LEAKY_RELU] = {S0, 0, OP_EMPTY, .check = check_flat_map},
	[WIRE_T_TRI] = {S0, 0, 0, .check = check_tri},
	[WIRE_T_FILL] = {S0, 0, OP_EMPTY, .check = check_fill},
	[WIRE_T_FLASH_ATTN_EXT] = {S012, 0x18, OP_BIG, .check = check_flash_attn},
	[WIRE_T_SSM_CONV] = {S01, 0, 0, .check = check_ssm_conv},
	[WIRE_T_SSM_SCAN] = {0x7f, 0, 0, 6, OP_LIMIT_SRC0_NE3, check_ssm_scan},
	[WIRE_T_WIN_PART] = {S0, 0, 0, .check = check_win_part},
	[WIRE_T_WIN_UNPART] = {S0, 0, 0, .check = check_win_unpart},
	[WIRE_T_GET_REL_POS] = {S0, 0, 0, .check = check_get_rel_pos},
	[WIRE_T_ADD_REL_POS] = {S012, 0, 0, .check = check_add_rel_pos},
	[WIRE_T_RWKV_WKV6] = {0x3f, 0, 0, .check = check_recurrent},
	[WIRE_T_GATED_LINEAR_ATTN] = {0x1f, 0, 0, .check = check_recurrent},
	[WIRE_T_RWKV_WKV7] = {0x7f, 0, 0, .check = check_recurrent},
	[WIRE_T_SOLVE_TRI] = {S01, 0, 0, .check = check_solve_tri},
	[WIRE_T_GATED_DELTA_NET] = {0x3f, 0, 0, .check = check_gated_delta_net},
	[WIRE_T_LIGHTNING_INDEXER] = {0xf, 0, OP_ROW_SCRATCH, .check = check_lightning_indexer},
	[WIRE_T_DSV4_HC_COMB] = {S012, 0, 0, .check = check_hc_comb},
	[WIRE_T_DSV4_HC_PRE] = {S01, 0, 0, .check = check_hc_pre},
	[WIRE_T_DSV4_HC_POST] = {S012, 8, 0, .check = check_hc_post},
	[WIRE_T_UNARY] = {S0, 0, SIZES, .check = check_unary},
	[WIRE_T_CROSS_ENTROPY_LOSS] = {S01, 0, OP_ROW_SCRATCH, .check = check_cross_entropy},
	[WIRE_T_CROSS_ENTROPY_LOSS_BACK] = {S012, 0, 0, .check = check_cross_entropy_back},
	[WIRE_T_OPT_STEP_ADAMW] = {0x1f, 0, 0, .check = check_opt_step},
	[WIRE_T_OPT_STEP_SGD] = {S012, 0, 0, .check = check_opt_step},
	[WIRE_T_GLU] = {S0, 2, SIZES, .check = check_glu},
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
		return check_norm(a);
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
