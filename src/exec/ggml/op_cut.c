/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a back end cannot be interrupted within a node, and the matrix products of a
 * large model with thousands of tokens take minutes of a small machine's processors.  But columns
 * of a product, queries of attention and rows of most other operations do not know of each other,
 * so such a node is the same as several nodes of the same operation on parts of its operands.  A
 * program could have asked for these itself: a part starts at a multiple of a stride, has the
 * strides of the whole, and lies inside it.
 *
 * Kernels work on tiles of up to CUT_TILE columns or queries, of matrix products at least of
 * CUT_SMALL, and on fewer in another way, which rounds differently.  So pieces are multiples of the
 * larger, or else the smaller, and none is left over that has fewer, unless a tile takes too long
 * itself.
 *
 * Operations on rows are cut along the last dimension there is more than one of, so that what was
 * without gaps stays so. */
#include "exec/ggml/op_cut.h"

#include <stdbool.h>
#include <string.h>

enum { CUT_TILE = 64, CUT_SMALL = 8 };

static int last_dim(const struct wire_tensor *t)
{
	for (int i = WIRE_MAX_DIMS - 1; i > 0; i--)
		if (t->ne[i] > 1)
			return i;
	return 0;
}

/* @src is cut along @dim with the result, or has one there that goes with all. */
static bool goes_with(struct op_cut *cut, const struct op_args *a, int src, int dim)
{
	const struct wire_tensor *t = a->src[src];

	if (!t || t->ne[dim] == 1)
		return true;
	cut->src[src] = (int8_t)dim;
	return t->ne[dim] == cut->n;
}

static struct op_cut whole(void)
{
	struct op_cut cut = {.n = 1, .tile = 1, .small = 1};

	memset(cut.src, OP_CUT_WHOLE, sizeof(cut.src));
	return cut;
}

static struct op_cut tiled(struct op_cut cut)
{
	cut.small = cut.n >= CUT_SMALL ? CUT_SMALL : 1;
	cut.tile = cut.n >= CUT_TILE ? CUT_TILE : cut.small;
	return cut;
}

static struct op_cut along(const struct op_args *a, int dst_dim)
{
	struct op_cut cut = whole();

	cut.dst = (int8_t)dst_dim;
	cut.n = a->dst->ne[dst_dim];
	return cut;
}

static struct op_cut cut_rows(const struct op_args *a, int n_src)
{
	int dim = last_dim(a->dst);
	struct op_cut cut = along(a, dim);

	for (int i = 1; i < WIRE_MAX_DIMS; i++) /* a copy may go to another shape */
		if (a->src[0]->ne[i] != a->dst->ne[i])
			return whole();
	if (dim == 0)
		return whole();
	for (int i = 0; i < n_src; i++)
		if (!goes_with(&cut, a, i, dim))
			return whole();
	return cut;
}

/* A slope per head and sinks are by the place in dimension 2. */
static struct op_cut cut_soft_max(const struct op_args *a)
{
	struct op_cut cut = cut_rows(a, 1);
	const struct wire_tensor *mask = a->src[1];

	if (mask && mask->ne[cut.dst] != 1) {
		cut.src[1] = cut.dst;
		if (mask->ne[cut.dst] < cut.n || (cut.dst != 1 && mask->ne[cut.dst] != cut.n))
			return whole();
	}
	return cut.dst == 2 && (a->src[2] || a->dst->params[1]) ? whole() : cut;
}

static struct op_cut cut_product(const struct op_args *a)
{
	struct op_cut cut = along(a, 1);

	return goes_with(&cut, a, 1, 1) ? tiled(cut) : whole();
}

/* An expert may have fewer tokens of a piece than of the whole, and rounds differently then. */
static struct op_cut cut_product_id(const struct op_args *a)
{
	struct op_cut cut = along(a, 2);

	cut.src[2] = 1;
	return goes_with(&cut, a, 1, 2) && a->src[2]->ne[1] == cut.n ? tiled(cut) : whole();
}

/* Queries: there may be more rows of the mask. */
static struct op_cut cut_attention(const struct op_args *a)
{
	struct op_cut cut = along(a, 2);

	if (a->dst->ne[3] > 1 || !goes_with(&cut, a, 0, 1))
		return whole();
	if (a->src[3] && a->src[3]->ne[1] < cut.n)
		return whole();
	if (a->src[3])
		cut.src[3] = 1;
	return tiled(cut);
}

/* Planes and images, of which nothing is known in an operation on others. */
static struct op_cut cut_planes(const struct op_args *a, int src, int first_dim)
{
	int dim = last_dim(a->dst);
	struct op_cut cut = along(a, dim);

	if (dim < first_dim || !a->src[src])
		return whole();
	for (int i = first_dim; i < WIRE_MAX_DIMS; i++)
		if (a->src[src]->ne[i] != a->dst->ne[i])
			return whole();
	cut.src[src] = (int8_t)dim;
	return cut;
}

/* Images: all channels of one are in a row of the result. */
static struct op_cut cut_im2col(const struct op_args *a)
{
	return a->dst->op == WIRE_T_IM2COL && a->dst->params[6] ? cut_planes(a, 1, 3) : whole();
}

/* Kernels: each makes a plane of the result. */
static struct op_cut cut_conv_2d(const struct op_args *a)
{
	struct op_cut cut = along(a, 2);

	return a->dst->ne[3] == 1 && goes_with(&cut, a, 0, 3) ? cut : whole();
}

/* Positions, one per token. */
static struct op_cut cut_rope(const struct op_args *a)
{
	struct op_cut cut = along(a, 2);

	if (a->dst->ne[3] > 1 || a->src[1]->ne[0] != cut.n || !goes_with(&cut, a, 0, 2))
		return whole();
	cut.src[1] = 0;
	return cut;
}

/* By what is looked up; where rows are set, in a table that each piece has all of. */
static struct op_cut cut_lookup(const struct op_args *a)
{
	struct op_cut cut = along(a, 1);

	if (a->dst->op == WIRE_T_SET_ROWS) {
		cut.n = a->src[0]->ne[1];
		cut.dst = OP_CUT_WHOLE;
		cut.src[0] = 1;
	}
	cut.src[1] = 0;
	return cut.n > 0 && a->src[1]->ne[0] == cut.n ? cut : whole();
}

static struct op_cut cut_indexer(const struct op_args *a)
{
	struct op_cut cut = along(a, 1);

	if (a->dst->ne[3] > 1 || a->src[3]->ne[1] != cut.n || !goes_with(&cut, a, 0, 2) ||
	    !goes_with(&cut, a, 2, 1))
		return whole();
	cut.src[3] = 1;
	return cut;
}

struct op_cut op_cut_of(const struct op_args *a)
{
	switch (a->dst->op) {
	case WIRE_T_MUL_MAT:
		return cut_product(a);
	case WIRE_T_MUL_MAT_ID:
		return cut_product_id(a);
	case WIRE_T_FLASH_ATTN_EXT:
		return cut_attention(a);
	case WIRE_T_CONV_2D:
		return cut_conv_2d(a);
	case WIRE_T_IM2COL:
		return cut_im2col(a);
	case WIRE_T_UPSCALE:
	case WIRE_T_POOL_2D:
		return cut_planes(a, 0, 2);
	case WIRE_T_LIGHTNING_INDEXER:
		return a->src[3] ? cut_indexer(a) : whole();
	case WIRE_T_ROPE:
		return cut_rope(a);
	case WIRE_T_GET_ROWS:
	case WIRE_T_SET_ROWS:
		return cut_lookup(a);
	case WIRE_T_SOFT_MAX:
		return cut_soft_max(a);
	case WIRE_T_ADD:
	case WIRE_T_SUB:
	case WIRE_T_MUL:
	case WIRE_T_DIV:
	case WIRE_T_GLU:
	case WIRE_T_CPY: /* to an operand, of which the result is a view */
		return cut_rows(a, 2);
	case WIRE_T_SQR:
	case WIRE_T_SQRT:
	case WIRE_T_LOG:
	case WIRE_T_SIN:
	case WIRE_T_COS:
	case WIRE_T_CUMSUM:
	case WIRE_T_SUM_ROWS:
	case WIRE_T_MEAN:
	case WIRE_T_NORM:
	case WIRE_T_RMS_NORM:
	case WIRE_T_L2_NORM:
	case WIRE_T_SCALE:
	case WIRE_T_CONT:
	case WIRE_T_DUP:
	case WIRE_T_CLAMP:
	case WIRE_T_LEAKY_RELU:
	case WIRE_T_ARGSORT:
	case WIRE_T_TOP_K:
	case WIRE_T_UNARY:
		return a->src[0] ? cut_rows(a, 1) : whole();
	default:
		return whole();
	}
}

static void cut_tensor(struct ggml_tensor *t, int dim, int64_t first, int64_t n)
{
	if (dim == OP_CUT_WHOLE)
		return;
	t->data = (char *)t->data + (size_t)first * t->nb[dim];
	t->ne[dim] = n;
}

int64_t op_cut_round(const struct op_cut *cut, int64_t wanted, int64_t left)
{
	int64_t tile = wanted >= cut->tile ? cut->tile : wanted >= cut->small ? cut->small : 1;
	int64_t n = wanted < 1 ? 1 : wanted;

	n -= n % tile;
	return left - n < tile ? left : n; /* also when that is less */
}

void op_cut_piece(const struct op_cut *cut, const struct ggml_tensor *whole, int64_t first,
		  int64_t n, struct ggml_tensor *piece, struct ggml_tensor *src)
{
	*piece = *whole;
	cut_tensor(piece, cut->dst, first, n);
	for (int i = 0; i < WIRE_MAX_SRC; i++) {
		if (!whole->src[i])
			continue;
		src[i] = *whole->src[i];
		cut_tensor(&src[i], cut->src[i], first, n);
		piece->src[i] = &src[i];
	}
}
