/* SPDX-License-Identifier: Apache-2.0
 *
 * tensor_ops.h -- stable numbers of ggml's tensor operations, and their names. */
#ifndef PIL_TENSOR_OPS_H
#define PIL_TENSOR_OPS_H

enum wire_tensor_op {
#define TENSOR_OP(number, NAME) WIRE_T_##NAME = number,
#define UNARY_OP(number, NAME)
#define GLU_OP(number, NAME)
#include "api/ggml/tensor_ops.def"
#undef TENSOR_OP
#undef UNARY_OP
#undef GLU_OP
	WIRE_NUM_TENSOR_OPS
};

enum wire_unary_op {
#define TENSOR_OP(number, NAME)
#define UNARY_OP(number, NAME) WIRE_UNARY_##NAME = number,
#define GLU_OP(number, NAME)
#include "api/ggml/tensor_ops.def"
#undef TENSOR_OP
#undef UNARY_OP
#undef GLU_OP
	WIRE_NUM_UNARY_OPS
};

enum wire_glu_op {
#define TENSOR_OP(number, NAME)
#define UNARY_OP(number, NAME)
#define GLU_OP(number, NAME) WIRE_GLU_##NAME = number,
#include "api/ggml/tensor_ops.def"
#undef TENSOR_OP
#undef UNARY_OP
#undef GLU_OP
	WIRE_NUM_GLU_OPS
};

/* Names as ggml_op_name(), ggml_unary_op_name() and ggml_glu_op_name() print them. */
extern const char *const wire_tensor_op_str[WIRE_NUM_TENSOR_OPS];
extern const char *const wire_unary_op_str[WIRE_NUM_UNARY_OPS];
extern const char *const wire_glu_op_str[WIRE_NUM_GLU_OPS];

#endif
