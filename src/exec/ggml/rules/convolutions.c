/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules of convolutions and pools. */
#include "exec/ggml/rules/rules.h"

const char *rule_conv_transpose_1d(const struct op_args *a)
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

const char *rule_conv_transpose_2d(const struct op_args *a)
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
const char *rule_im2col(const struct op_args *a)
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
const char *rule_im2col_3d(const struct op_args *a)
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

const char *rule_col2im_1d(const struct op_args *a)
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

const char *rule_conv_2d(const struct op_args *a)
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

const char *rule_conv_3d(const struct op_args *a)
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

const char *rule_conv_2d_dw(const struct op_args *a)
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
const char *rule_pool_1d(const struct op_args *a)
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
const char *rule_pool_2d(const struct op_args *a)
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
