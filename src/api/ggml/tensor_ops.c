/* SPDX-License-Identifier: Apache-2.0
 *
 * The names of tensor_ops.def, by their numbers. */
#include "api/ggml/tensor_ops.h"

#include <assert.h>

#include "api/ggml/ggml.h"

const char *const wire_tensor_op_str[WIRE_NUM_TENSOR_OPS] = {
#define TENSOR_OP(number, NAME) [number] = #NAME,
#define UNARY_OP(number, NAME)
#define GLU_OP(number, NAME)
#include "api/ggml/tensor_ops.def"
#undef TENSOR_OP
#undef UNARY_OP
#undef GLU_OP
};

const char *const wire_unary_op_str[WIRE_NUM_UNARY_OPS] = {
#define TENSOR_OP(number, NAME)
#define UNARY_OP(number, NAME) [number] = #NAME,
#define GLU_OP(number, NAME)
#include "api/ggml/tensor_ops.def"
#undef TENSOR_OP
#undef UNARY_OP
#undef GLU_OP
};

const char *const wire_glu_op_str[WIRE_NUM_GLU_OPS] = {
#define TENSOR_OP(number, NAME)
#define UNARY_OP(number, NAME)
#define GLU_OP(number, NAME) [number] = #NAME,
#include "api/ggml/tensor_ops.def"
#undef TENSOR_OP
#undef UNARY_OP
#undef GLU_OP
};

static_assert(WIRE_NUM_TENSOR_OPS <= 256 && WIRE_NUM_UNARY_OPS <= 128 && WIRE_NUM_GLU_OPS <= 128,
	      "the bit sets of gg_welcome");
