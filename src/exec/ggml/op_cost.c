/* SPDX-License-Identifier: Apache-2.0
 *
 * What nodes take, of time by a table and of memory by what ggml's CPU back end asks for; see
 * op_cost.h.  A test runs large nodes of every operation on the real ggml and compares. */
#include "exec/ggml/op_cost.h"

#include <stdbool.h>

#include "exec/ggml/op_cut.h"

/* What a node takes of one thread: NODE_NS, and for each step, element and row what stands here.
 * Measured with `run_graph --time` on one core of a CPU of 2023 with the worst shapes and data that
 * were found (rows of one element, numbers too small for fast paths), and doubled for a slow one.
 * A number too small costs some 60 ns per instruction, so what is done one by one, the rest of a
 * row after its last whole vector, costs most; see one_by_one(). */
struct step {
	uint32_t ps;         /* of work_per_element() */
	uint32_t element_ps; /* of the result, or of a source that has more */
	uint32_t row_ns;
	bool serial; /* ggml gives it one thread however many there are */
};

enum { UPSCALE_ANTIALIAS = 0x200 };
enum { NODE_NS = 1000, SERIAL_COST = 2, ANGLE_PS = 800000 };
enum {
	VECTORS = 64,       /* elements that kernels take at once, at most */
	ONE_BY_ONE = 14,    /* times a step in a vector */
	CONVERT_PS = 15000, /* per element of a product's src[1] */
};

static const struct step steps[WIRE_NUM_TENSOR_OPS] = {
	[WIRE_T_ACC] = {0, 8000, 120, false},
	[WIRE_T_ADD] = {0, 15000, 250, false},
	[WIRE_T_ADD1] = {0, 15000, 200, false},
	[WIRE_T_ADD_ID] = {0, 10000, 150, false},
	[WIRE_T_ADD_REL_POS] = {0, 15000, 200, true},
	[WIRE_T_ARANGE] = {0, 25000, 0, false},
	[WIRE_T_ARGMAX] = {0, 20000, 200, true},
	[WIRE_T_ARGSORT] = {60000, 20000, 1000, false},
	[WIRE_T_CLAMP] = {0, 20000, 200, false},
	[WIRE_T_COL2IM_1D] = {8000, 30000, 200, false},
	[WIRE_T_CONCAT] = {0, 20000, 200, false},
	[WIRE_T_CONT] = {3000, 10000, 150, false},
	[WIRE_T_CONV_2D] = {2000, 350000, 400, false},
	[WIRE_T_CONV_2D_DW] = {15000, 30000, 100, false},
	[WIRE_T_CONV_3D] = {3000, 500000, 400, false},
	[WIRE_T_CONV_TRANSPOSE_1D] = {12000, 20000, 300, false},
	[WIRE_T_CONV_TRANSPOSE_2D] = {5000, 10000, 200, false},
	[WIRE_T_COS] = {0, 100000, 200, true},
	[WIRE_T_COUNT_EQUAL] = {0, 15000, 150, false},
	[WIRE_T_CPY] = {3000, 40000, 250, false},
	[WIRE_T_CUMSUM] = {0, 15000, 150, false},
	[WIRE_T_DIAG] = {0, 12000, 150, true},
	[WIRE_T_DIAG_MASK_INF] = {0, 15000, 150, false},
	[WIRE_T_DIAG_MASK_ZERO] = {0, 15000, 150, false},
	[WIRE_T_DIV] = {0, 80000, 200, false},
	[WIRE_T_DSV4_HC_COMB] = {5000, 20000, 200, false},
	[WIRE_T_DSV4_HC_POST] = {20000, 40000, 300, false},
	[WIRE_T_DSV4_HC_PRE] = {40000, 100000, 600, false},
	[WIRE_T_DUP] = {3000, 10000, 150, false},
	[WIRE_T_FILL] = {0, 15000, 200, false},
	[WIRE_T_FLASH_ATTN_EXT] = {5000, 150000, 1000, false},
	[WIRE_T_GATED_DELTA_NET] = {2000, 400000, 500, false},
	[WIRE_T_GATED_LINEAR_ATTN] = {1500, 40000, 200, false},
	[WIRE_T_GET_REL_POS] = {0, 10000, 100, true},
	[WIRE_T_GET_ROWS] = {0, 30000, 300, false},
	[WIRE_T_GET_ROWS_BACK] = {0, 20000, 200, true},
	[WIRE_T_GLU] = {0, 160000, 400, false},
	[WIRE_T_GROUP_NORM] = {0, 25000, 200, false},
	[WIRE_T_IM2COL] = {0, 10000, 600, false},
	[WIRE_T_IM2COL_3D] = {0, 30000, 150, false},
	[WIRE_T_IM2COL_BACK] = {40000, 60000, 200, false},
	[WIRE_T_L2_NORM] = {0, 80000, 300, false},
	[WIRE_T_LEAKY_RELU] = {0, 40000, 250, true},
	[WIRE_T_LIGHTNING_INDEXER] = {8000, 80000, 400, false},
	[WIRE_T_LOG] = {0, 100000, 200, true},
	[WIRE_T_MEAN] = {0, 15000, 150, true},
	[WIRE_T_MUL] = {0, 40000, 250, false},
	[WIRE_T_MUL_MAT] = {800, 400000, 800, false},
	[WIRE_T_MUL_MAT_ID] = {800, 300000, 1000, false},
	[WIRE_T_NORM] = {0, 25000, 250, false},
	[WIRE_T_OUT_PROD] = {8000, 20000, 300, false},
	[WIRE_T_OPT_STEP_ADAMW] = {0, 250000, 500, false},
	[WIRE_T_PAD] = {0, 30000, 200, false},
	[WIRE_T_PAD_REFLECT_1D] = {0, 20000, 200, false},
	[WIRE_T_POOL_1D] = {30000, 100000, 200, true},
	[WIRE_T_POOL_2D] = {5000, 15000, 100, true},
	[WIRE_T_REPEAT] = {0, 15000, 200, true},
	[WIRE_T_REPEAT_BACK] = {0, 10000, 150, true},
	[WIRE_T_RMS_NORM] = {0, 60000, 300, false},
	[WIRE_T_RMS_NORM_BACK] = {0, 90000, 250, false},
	[WIRE_T_ROLL] = {0, 20000, 150, false},
	[WIRE_T_ROPE] = {0, 80000, 300, false},
	[WIRE_T_ROPE_BACK] = {0, 80000, 300, false},
	[WIRE_T_RWKV_WKV6] = {1500, 40000, 200, false},
	[WIRE_T_RWKV_WKV7] = {1500, 40000, 200, false},
	[WIRE_T_SCALE] = {0, 60000, 200, false},
	[WIRE_T_SET] = {0, 12000, 150, false},
	[WIRE_T_SET_ROWS] = {3000, 30000, 300, false},
	[WIRE_T_SILU_BACK] = {0, 200000, 300, false},
	[WIRE_T_SIN] = {0, 100000, 200, true},
	[WIRE_T_SOFT_MAX] = {0, 120000, 400, false},
	[WIRE_T_SOFT_MAX_BACK] = {0, 60000, 300, false},
	[WIRE_T_SOLVE_TRI] = {10000, 150000, 300, false},
	[WIRE_T_SQR] = {0, 30000, 250, true},
	[WIRE_T_SQRT] = {0, 60000, 250, true},
	[WIRE_T_SSM_CONV] = {15000, 30000, 300, false},
	[WIRE_T_SSM_SCAN] = {1000, 400000, 400, false},
	[WIRE_T_SUB] = {0, 20000, 200, false},
	[WIRE_T_SUM] = {0, 15000, 150, true},
	[WIRE_T_SUM_ROWS] = {0, 20000, 150, true},
	[WIRE_T_TIMESTEP_EMBEDDING] = {0, 200000, 400, false},
	[WIRE_T_TOP_K] = {60000, 20000, 1000, false},
	[WIRE_T_TRI] = {0, 40000, 300, false},
	[WIRE_T_UNARY] = {200000, 90000, 300, true},
	[WIRE_T_UPSCALE] = {60000, 120000, 300, false},
	[WIRE_T_WIN_PART] = {0, 10000, 120, true},
	[WIRE_T_WIN_UNPART] = {0, 12000, 120, true},
};
static const struct step other_step = {20000, 100000, 1000, true};

static const struct step *step_of(const struct op_args *a)
{
	const struct step *step = &steps[a->dst->op];

	return step->element_ps ? step : &other_step;
}

static uint64_t log2_of(int64_t n)
{
	return n > 1 ? 64 - (uint64_t)__builtin_clzll((uint64_t)n) : 1;
}

/* Steps to write an element of @type: some search for the best scale of a block. */
static uint64_t quantizing(uint32_t type)
{
	switch (type) {
	case OP_F32:
	case OP_F16:
	case OP_BF16:
	case OP_I16:
	case OP_I32:
	case OP_I64:
		return 0;
	case OP_Q4_0:
	case OP_Q4_1:
	case OP_Q5_0:
	case OP_Q5_1:
	case OP_Q8_0:
		return 6;
	case OP_MXFP4:
	case OP_NVFP4:
		return 800;
	default:
		return 400;
	}
}

static uint64_t times(uint64_t x, uint64_t y)
{
	uint64_t product;

	return __builtin_mul_overflow(x, y, &product) ? UINT64_MAX : product;
}

static uint64_t plus(uint64_t x, uint64_t y)
{
	uint64_t sum;

	return __builtin_add_overflow(x, y, &sum) ? UINT64_MAX : sum;
}

/* Steps for a row of @n that takes one per element: the rest after the last vector takes more. */
static uint64_t one_by_one(int64_t n)
{
	return (uint64_t)n + (uint64_t)(n % VECTORS) * (ONE_BY_ONE - 1);
}

/* Steps per element of a row of an outer product, which is unpacked for each. */
static uint64_t summed_up(const struct wire_tensor *x)
{
	uint64_t n = (uint64_t)x->ne[0];

	return (one_by_one(x->ne[0]) + n - 1) / n + (x->type == OP_F32 ? 0 : 2);
}

/* Steps per element of the result; of the sums behind it, mostly. */
static uint64_t work_per_element(const struct op_args *a)
{
	const struct wire_tensor *d = a->dst, *x = a->src[0], *y = a->src[1];
	const int32_t *p = d->params;
	uint64_t n;

	switch (d->op) {
	case WIRE_T_MUL_MAT:
	case WIRE_T_MUL_MAT_ID:
		return (uint64_t)x->ne[0];
	case WIRE_T_OUT_PROD:
		return times((uint64_t)x->ne[1], summed_up(x));
	case WIRE_T_SOLVE_TRI:
		return (uint64_t)x->ne[1];
	case WIRE_T_FLASH_ATTN_EXT: /* per query, head and key: two sums, and an exponential */
		n = one_by_one(x->ne[0]) / 4 + one_by_one(d->ne[0]) / 4;
		if (n < (uint64_t)(x->ne[0] + d->ne[0]))
			n = (uint64_t)(x->ne[0] + d->ne[0]);
		return times((uint64_t)y->ne[1], n + 32) / (uint64_t)d->ne[0];
	case WIRE_T_UNARY:
		return p[0] == WIRE_UNARY_GELU_ERF;
	case WIRE_T_ARGSORT:
		return log2_of(x->ne[0]);
	case WIRE_T_TOP_K:
		return (uint64_t)(x->ne[0] / d->ne[0] + 1) * log2_of(x->ne[0]);
	case WIRE_T_DSV4_HC_PRE:
		return (uint64_t)x->ne[1];
	case WIRE_T_DSV4_HC_POST:
		return (uint64_t)y->ne[1];
	case WIRE_T_CPY:
	case WIRE_T_CONT:
	case WIRE_T_DUP:
	case WIRE_T_SET_ROWS:
		return quantizing(d->type);
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
	case WIRE_T_UPSCALE: /* all of the source, when it is made smaller one way or both */
		if ((p[0] & 0xff) == 0)
			return 0; /* the nearest */
		n = times((uint64_t)(x->ne[0] / d->ne[0] + 1), (uint64_t)(x->ne[1] / d->ne[1] + 1));
		return p[0] & UPSCALE_ANTIALIAS ? plus(128, times(8, n)) : plus(16, n);
	case WIRE_T_SSM_CONV:
		return (uint64_t)y->ne[0];
	case WIRE_T_SSM_SCAN: /* an exponential per state, where each has a decay of its own */
		return (uint64_t)x->ne[0] * (a->src[3]->ne[0] > 1 ? 32 : 4);
	case WIRE_T_RWKV_WKV6:
	case WIRE_T_RWKV_WKV7:
	case WIRE_T_GATED_LINEAR_ATTN:
		return (uint64_t)y->ne[0] * 4;
	case WIRE_T_GATED_DELTA_NET:
		n = (uint64_t)a->src[2]->ne[0];
		return n * 4 + n % VECTORS * 16;
	case WIRE_T_LIGHTNING_INDEXER:
		return (uint64_t)(x->ne[0] * x->ne[1]);
	case WIRE_T_DSV4_HC_COMB:
		return (uint64_t)p[1] * 16;
	default:
		return 1;
	}
}

/* Products of unlike types convert src[1]: to 16 bits an element, or less, but all of F32's. */
static uint64_t converted(const struct wire_tensor *x, const struct wire_tensor *y)
{
	return x->type == y->type ? 0 : (uint64_t)tensor_elems(y) * (x->type == OP_F32 ? 4 : 2);
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

static uint64_t n_rows(const struct wire_tensor *t)
{
	return (uint64_t)(t->ne[1] * t->ne[2] * t->ne[3]);
}

/* Whose elements count: of the result, or of what is summed up.  Of tables that are looked up or
 * written to in places, what is looked up or written. */
static const struct wire_tensor *counted(const struct op_args *a)
{
	const struct wire_tensor *most = a->dst;

	if (most->op == WIRE_T_SET_ROWS)
		return a->src[0];
	if (most->op == WIRE_T_GET_ROWS || most->op == WIRE_T_MUL_MAT ||
	    most->op == WIRE_T_MUL_MAT_ID || most->op == WIRE_T_FLASH_ATTN_EXT)
		return most;
	for (int i = 0; i < 2; i++)
		if (a->src[i] && tensor_elems(a->src[i]) > tensor_elems(most))
			most = a->src[i];
	return most;
}

static uint64_t time_of(const struct op_args *a)
{
	const struct step *step = step_of(a);
	const struct wire_tensor *most = counted(a);
	uint64_t n = (uint64_t)tensor_elems(a->dst->op == WIRE_T_SET_ROWS ? most : a->dst), ps;

	ps = times(n, times(work_per_element(a), step->ps));
	ps = plus(ps, times((uint64_t)tensor_elems(most), step->element_ps));
	ps = plus(ps, times(n_rows(most), step->row_ns * UINT64_C(1000)));
	if (a->dst->op == WIRE_T_MUL_MAT || a->dst->op == WIRE_T_MUL_MAT_ID)
		ps = plus(ps, times((uint64_t)tensor_elems(a->src[1]), CONVERT_PS));
	if (a->dst->op == WIRE_T_ROPE || a->dst->op == WIRE_T_ROPE_BACK) /* angles, per position */
		ps = plus(ps, times(n / (uint64_t)a->dst->ne[1], ANGLE_PS));
	return plus(NODE_NS, ps / 1000);
}

struct op_cost op_cost_of(const struct op_rule *rule, const struct op_args *a)
{
	struct op_cost cost = {0};

	if (tensor_empty(a->dst) || (rule->flags & OP_VIEW))
		return cost;
	cost.time_ns = time_of(a);
	cost.piece_ns = cost.time_ns / (uint64_t)op_cut_of(a).n;
	if (step_of(a)->serial)
		cost.piece_ns = times(cost.piece_ns, SERIAL_COST);
	cost.scratch = shared_scratch(a);
	if (a->src[0])
		cost.thread_scratch = thread_scratch(rule, a);
	return cost;
}
