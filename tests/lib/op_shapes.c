/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a shape is a line of text, `f:A,B,C,D f:A,1,1,1 = f:A,B,C,D`, tensors as
 * type and four dimensions, `_` for an absent source.  Letters and signs are variables that get a
 * random value per graph, the same wherever they stand; next to each other they multiply.  Type
 * letters that stand for a choice are chosen once per graph, too.  Parameters are `index:integer`
 * or `index~float`. */
#include "lib/op_shapes.h"

#include <ctype.h>
#include <string.h>

#include "exec/ggml/op_rules.h"

#define T_F32  0
#define T_F16  1
#define T_I16  25
#define T_I32  26
#define T_I64  27
#define T_BF16 30

const struct graph_types op_shapes_types = {
	.block = {1,   1,   32,  32,  0,   0,   32,  32,  32,  32, 256, 256, 256, 256, 256,
		  256, 256, 256, 256, 256, 32,  256, 256, 256, 1,  1,   1,   1,   1,   256,
		  1,   0,   0,   0,   256, 256, 0,   0,   0,   32, 64,  128, 64},
	.bytes = {4,   2,  18, 20, 0,  0,  22,  24, 34,  36, 84, 110, 144, 176, 210,
		  292, 66, 74, 98, 50, 18, 110, 82, 136, 1,  2,  4,   8,   8,   56,
		  2,   0,  0,  0,  54, 66, 0,   0,  0,   17, 36, 18,  18},
	.bf16_maps = true,
};

static const uint8_t floats[] = {T_F32, T_F16, T_BF16};
static const uint8_t halves[] = {T_F32, T_F16};
static const uint8_t any_plain[] = {T_F32, T_F16, T_BF16, T_I16, T_I32, T_I64, 24, 28};
static const uint8_t repeatable[] = {T_F32, T_F16, T_BF16, T_I16, T_I32};
static const uint8_t indices[] = {T_I32, T_I64};
static const uint8_t products[] = {0,  1,  30, 2,  3,  6,  7,  8,  10, 11, 12, 13, 14, 16,
				   17, 18, 19, 20, 21, 22, 23, 29, 34, 35, 39, 40, 41, 42};
static const uint8_t quants[] = {2,  3,  6,  7,  8,  10, 11, 12, 13, 14, 16, 17, 18,
				 19, 20, 21, 22, 23, 29, 34, 35, 39, 40, 41, 42};
static const uint8_t writables[] = {0,  1,  30, 2,  3,  6,  7,  8,  10, 11, 12,
				    13, 14, 20, 23, 34, 35, 39, 40, 41, 42};

struct shape {
	uint32_t op;
	const char *tensors, *params;
	int view_of;      /* source the result is a view of, plus one */
	const char *then; /* a MUL of the result with this */
};

#define MAP      "v:A,B,C,D = v:A,B,C,D"
#define HALF_MAP "k:A,B,C,D = k:A,B,C,D"
#define ROWS     "f:X,B,C,D = f:X,B,C,D"
#define REPEATED "v:A,B,C,D = v:AE,BF,CG,DH"

static const struct shape shapes[] = {
	{WIRE_T_DUP, MAP, ""},
	{WIRE_T_DUP, "q:#,B,C,D = q:#,B,C,D", ""},
	{WIRE_T_ADD, "v:AE,BF,CG,DH v:A,B,C,D = v:AE,BF,CG,DH", ""},
	{WIRE_T_ADD, "v:X,B,C,D f:X,1,1,1 = v:X,B,C,D", ""},
	{WIRE_T_ADD_ID, "f:X,B,C,1 f:X,E,1,1 i:B,C,1,1 = f:X,B,C,1", ""},
	{WIRE_T_ADD1, "v:A,B,C,D f:1,1,1,1 = v:A,B,C,D", ""},
	{WIRE_T_ACC, "f:A+3,B+2,C+1,D f:A,B,C,D = f:A+3,B+2,C+1,D",
	 "0:4(A+3) 1:4(A+3)(B+2) 2:4(A+3)(B+2)(C+1) 3:4"},
	{WIRE_T_SUB, "v:AE,BF,CG,DH v:A,B,C,D = v:AE,BF,CG,DH", ""},
	{WIRE_T_MUL, "v:AE,BF,CG,DH v:A,B,C,D = v:AE,BF,CG,DH", ""},
	{WIRE_T_DIV, "v:AE,BF,CG,DH v:A,B,C,D = v:AE,BF,CG,DH", ""},
	{WIRE_T_SQR, MAP, ""},
	{WIRE_T_SQRT, MAP, ""},
	{WIRE_T_LOG, MAP, ""},
	{WIRE_T_SIN, MAP, ""},
	{WIRE_T_COS, MAP, ""},
	{WIRE_T_SUM, "v:X,B,C,D = v:1,1,1,1", ""},
	{WIRE_T_SUM_ROWS, "f:X,B,C,D = f:1,B,C,D", ""},
	{WIRE_T_CUMSUM, ROWS, ""},
	{WIRE_T_MEAN, "f:X,B,C,D = f:1,B,C,D", ""},
	{WIRE_T_ARGMAX, "f:X,Y,1,1 = i:Y,1,1,1", ""},
	{WIRE_T_COUNT_EQUAL, "i:X,Y,1,1 i:X,Y,1,1 = l:1,1,1,1", ""},
	{WIRE_T_REPEAT, "r:A,B,C,D = r:AE,BF,CG,DH", ""},
	{WIRE_T_REPEAT_BACK, "f:AE,BF,CG,DH = f:A,B,C,D", ""},
	{WIRE_T_CONCAT, "a:A,B,C,D a:E,B,C,D = a:A+E,B,C,D", "0:0"},
	{WIRE_T_CONCAT, "a:A,B,C,D a:A,E,C,D = a:A,B+E,C,D", "0:1"},
	{WIRE_T_CONCAT, "q:#,B,C,D q:#,B,E,D = q:#,B,C+E,D", "0:2"},
	{WIRE_T_CONCAT, "a:A,B,C,D a:A,B,C,E = a:A,B,C,D+E", "0:3"},
	{WIRE_T_SILU_BACK, "k:X,B,C,D k:X,B,C,D = k:X,B,C,D", ""},
	{WIRE_T_NORM, ROWS, "0~1"},
	{WIRE_T_RMS_NORM, ROWS, "0~1"},
	{WIRE_T_RMS_NORM, ROWS, "0~1", .then = "f:X,B,C,D"},
	{WIRE_T_RMS_NORM, ROWS, "0~1", .then = "f:X,1,1,1"},
	{WIRE_T_RMS_NORM_BACK, "f:X,B,C,D f:X,B,C,D = f:X,B,C,D", "0~1"},
	{WIRE_T_GROUP_NORM, "f:A,B,CE,D = f:A,B,CE,D", "0:C 1~1"},
	{WIRE_T_L2_NORM, ROWS, "0~1"},
	{WIRE_T_MUL_MAT, "q:#,X,C,D f:#,Y,CE,DF = f:X,Y,CE,DF", ""},
	{WIRE_T_MUL_MAT, "q:#,X,1,1 f:#,1,1,1 = f:X,1,1,1", ""},
	{WIRE_T_MUL_MAT, "v:X,Y,C,D v:X,L,CE,DF = f:Y,L,CE,DF", ""},
	{WIRE_T_MUL_MAT, "v:X,Y,C,D f:X,L,CE,DF = f:Y,L,CE,DF", ""},
	{WIRE_T_MUL_MAT, "f:@,@,1,1 f:@,Y,C,D = f:@,Y,C,D", "1:1"},
	{WIRE_T_MUL_MAT, "f:@,@,1,1 h:@,Y,C,D = f:@,Y,C,D", "1:1"},
	{WIRE_T_MUL_MAT, "f:X,Y,C,D b:X,L,CE,DF = f:Y,L,CE,DF", ""},
	{WIRE_T_MUL_MAT_ID, "q:#,X,E,1 f:#,B,L,1 i:BF,L,1,1 = f:X,BF,L,1", ""},
	{WIRE_T_OUT_PROD, "f:X,Y,C,D f:L,Y,CE,DF = f:X,L,CE,DF", ""},
	{WIRE_T_OUT_PROD, "h:X,Y,C,D f:L,Y,C,D = f:X,L,C,D", ""},
	{WIRE_T_OUT_PROD, "p:#,Y,C,D f:L,Y,C,D = f:#,L,C,D", ""},
	{WIRE_T_SCALE, ROWS, "0~2 1~1"},
	{WIRE_T_SCALE, ROWS, "0~2"},
	{WIRE_T_SCALE, "b:X,B,C,D = b:X,B,C,D", "0~2"},
	{WIRE_T_SET, "f:A+3,B+2,C+1,D f:A,B,C,D = f:A+3,B+2,C+1,D",
	 "0:4(A+3) 1:4(A+3)(B+2) 2:4(A+3)(B+2)(C+1) 3:4"},
	{WIRE_T_SET, "i:A+3,B+2,C+1,D i:A,B,C,D = i:A+3,B+2,C+1,D",
	 "0:4(A+3) 1:4(A+3)(B+2) 2:4(A+3)(B+2)(C+1) 3:0"},
	{WIRE_T_CPY, "v:A,B,C,D u:A,B,C,D = u:A,B,C,D", "", 2},
	{WIRE_T_CPY, "v:AB,C,D,1 u:A,B,C,D = u:A,B,C,D", "", 2},
	{WIRE_T_CPY, "f:A,B,C,D i:A,B,CD,1 = i:A,B,CD,1", "", 2},
	{WIRE_T_CPY, "i:A,B,C,D f:AB,C,D,1 = f:AB,C,D,1", "", 2},
	{WIRE_T_CPY, "v:#,B,C,D w:#,B,C,D = w:#,B,C,D", "", 2},
	{WIRE_T_CPY, "v:#,B,C,D w:#B,C,D,1 = w:#B,C,D,1", "", 2},
	{WIRE_T_CPY, "q:#,B,C,D f:#,B,C,D = f:#,B,C,D", "", 2},
	{WIRE_T_CPY, "q:#,B,C,D q:#,C,B,D = q:#,C,B,D", "", 2},
	{WIRE_T_CONT, "a:A,B,C,D = a:A,B,C,D", ""},
	{WIRE_T_CONT, "a:AB,C,D,1 = a:A,B,C,D", ""},
	{WIRE_T_CONT, "q:#,B,C,D = q:#,B,C,D", ""},
	{WIRE_T_RESHAPE, "a:AB,C,D,1 = a:A,B,C,D", "", 1},
	{WIRE_T_VIEW, "a:A,B,C,D = a:A,B,C,1", "", 1},
	{WIRE_T_PERMUTE, "a:A,B,C,D = a:A,B,C,D", "", 1},
	{WIRE_T_TRANSPOSE, "a:A,A,C,D = a:A,A,C,D", "", 1},
	{WIRE_T_GET_ROWS, "q:#,X,C,D i:Y,C,D,1 = f:#,Y,C,D", ""},
	{WIRE_T_GET_ROWS, "v:X,Y,C,D i:L,C,D,1 = f:X,L,C,D", ""},
	{WIRE_T_GET_ROWS, "i:A,Y,C,D i:L,C,D,1 = i:A,L,C,D", ""},
	{WIRE_T_GET_ROWS_BACK, "k:X,Y,1,1 i:Y,1,1,1 = f:X,L,1,1", ""},
	{WIRE_T_GET_ROWS_BACK, "k:X,Y+A,1,1 i:Y,1,1,1 = f:X,L,1,1", ""},
	{WIRE_T_SET_ROWS, "k:#,L,CE,DF j:L,C,D,1 w:#,X,CE,DF = w:#,X,CE,DF", "", 3},
	{WIRE_T_SET_ROWS, "f:#,L,CE,DF j:L,C,D,1 w:#,X,CE,DF = w:#,X,CE,DF", "", 3},
	{WIRE_T_SET_ROWS, "k:#,0,CE,DF j:0,C,D,1 w:#,X,CE,DF = w:#,X,CE,DF", "", 3},
	{WIRE_T_DIAG, "f:X,1,C,D = f:X,X,C,D", ""},
	{WIRE_T_DIAG_MASK_INF, ROWS, "0:A"},
	{WIRE_T_DIAG_MASK_ZERO, ROWS, "0:A"},
	{WIRE_T_SOFT_MAX, ROWS, "0~1"},
	{WIRE_T_SOFT_MAX, "f:X,B,CE,DF k:X,B+G,C,D = f:X,B,CE,DF", "0~1 1~A"},
	{WIRE_T_SOFT_MAX, "f:X,B,CE,DF k:X,B,C,D f:CE,1,1,1 = f:X,B,CE,DF", "0~1"},
	{WIRE_T_SOFT_MAX, "f:X,B,C,D _ f:C,1,1,1 = f:X,B,C,D", "0~1"},
	{WIRE_T_SOFT_MAX_BACK, "f:X,B,C,D f:X,B,C,D = f:X,B,C,D", "0~1"},
	{WIRE_T_ROPE, "k:2A,B,L,D i:L,1,1,1 = k:2A,B,L,D", "1:2A 2:0 5~9 6~1 8~1"},
	{WIRE_T_ROPE, "k:2A+2E+2F,B,L,D i:L,1,1,1 f:A+E+F,1,1,1 = k:2A+2E+2F,B,L,D",
	 "1:2A 2:2 5~9 6~1 8~1 15:2E"},
	{WIRE_T_ROPE, "k:2A+8,B,L,D i:4L,1,1,1 = k:2A+8,B,L,D",
	 "1:2A+8 2:8 5~9 6~1 8~1 11:A 12:1 13:1 14:1"},
	{WIRE_T_ROPE, "k:4A,B,L,D i:4L,1,1,1 = k:4A,B,L,D", "1:2A 2:24 5~9 6~1 8~1 11:A 12:A"},
	{WIRE_T_ROPE, "k:2A+8,B,L,D i:4L,1,1,1 = k:2A+8,B,L,D", "1:2A 2:40 5~9 6~1 8~1 11:A 12:1"},
	{WIRE_T_ROPE_BACK, "k:2A,B,L,D i:L,1,1,1 = k:2A,B,L,D", "1:2A 2:0 5~9 6~1 8~1"},
	{WIRE_T_CLAMP, HALF_MAP, "0~0 1~1"},
	{WIRE_T_CONV_TRANSPOSE_1D, "k:A,B,C,1 f:L,C,1,1 = f:(L-1)G+A,B,1,1", "0:G"},
	{WIRE_T_IM2COL, "k:A,B,C,E f:L,M,C,D = g:ABC,N,O,D", "0:G 1:H 2:A 3:B 4:1 5:E 6:1"},
	{WIRE_T_IM2COL, "k:A,C,E,1 f:L,C,D,1 = g:AC,N,D,1", "0:G 2:A 4:E"},
	{WIRE_T_IM2COL_BACK, "f:ABC,N,O,D k:A,B,C,E = f:L,M,C,D", "0:G 1:H 2:A 3:B 4:1 5:E 6:1"},
	{WIRE_T_IM2COL_3D, "k:A,B,C,EF f:L,M,G,EH = g:ABCE,N,O,DH",
	 "0:1 1:2 2:1 3:A 4:B 5:0 6:1 7:1 8:D 9:E"},
	{WIRE_T_IM2COL_3D, "k:A,B,C,EF f:L,M,G,E = g:ABCE,N,O,0",
	 "0:1 1:2 2:1 3:A 4:B 5:0 6:1 7:1 8:D 9:E"},
	{WIRE_T_COL2IM_1D, "v:AC,L,1,1 = v:(L-1)G+A,C,1,1", "0:G 1:C 2:0"},
	{WIRE_T_CONV_2D, "k:A,B,C,E f:L,M,C,D = f:N,O,E,D", "0:G 1:H 2:A 3:B 4:1 5:E"},
	{WIRE_T_CONV_3D, "k:A,B,C,EF f:L,M,G,EH = f:N,O,D,FH",
	 "0:1 1:2 2:1 3:A 4:B 5:0 6:1 7:1 8:D 9:E 10:H 11:F"},
	{WIRE_T_CONV_2D_DW, "k:A,B,1,C f:L,M,C,D = f:N,O,C,D", "0:G 1:H 2:A 3:B 4:1 5:E"},
	{WIRE_T_CONV_TRANSPOSE_2D, "k:A,B,C,D f:L,M,D,E = f:(L-1)G+A,(M-1)G+B,C,E", "0:G"},
	{WIRE_T_POOL_1D, "k:L+A,B,C,D = f:N,B,C,D", "0:1 1:A 2:G 3:E"},
	{WIRE_T_POOL_2D, "k:L+A,M+B,C,D = f:N,O,C,D", "0:0 1:A 2:B 3:G 4:H 5:E 6:F"},
	{WIRE_T_POOL_2D, "k:L+A,M+B,C,D = f:N,O,C,D", "0:1 1:A 2:B 3:G 4:H 5:E 6:F"},
	{WIRE_T_UPSCALE, "f:L,M,C,D = f:X,Y,CE,DF", "0:0"},
	{WIRE_T_UPSCALE, "f:X,Y,C,D = f:L,M,CE,DF", "0:1"},
	{WIRE_T_UPSCALE, "f:L,M,C,D = f:X,Y,C,D", "0:2"},
	{WIRE_T_UPSCALE, "f:L,M,C,D = f:X,Y,C,D", "0:256"},
	{WIRE_T_UPSCALE, "f:X,Y,C,D = f:L,M,C,D", "0:513"},
	{WIRE_T_PAD, "f:L,M,C,D = f:L+A+B,M+E,C+F,D+G", "0:A 1:B 2:E 5:F 6:G"},
	{WIRE_T_PAD, "f:L+A,M,C,D = f:L+A+A+B,M,C,D+G", "0:A 1:B 7:G 8:1"},
	{WIRE_T_PAD_REFLECT_1D, "f:L+A+B,M,C,D = f:L+A+B+A+B,M,C,D", "0:A 1:B"},
	{WIRE_T_ROLL, "f:L,M,C,D = f:L,M,C,D", "0:L-1 1:1-M 2:C-1 3:0"},
	{WIRE_T_ARANGE, "= f:X,1,1,1", "0~0 1~X 2~1"},
	{WIRE_T_TIMESTEP_EMBEDDING, "f:L,1,1,1 = f:X,L,1,1", "0:X 1:10000"},
	{WIRE_T_ARGSORT, "f:X,B,C,D = i:X,B,C,D", "0:0"},
	{WIRE_T_ARGSORT, "f:#,B,C,D = i:#,B,C,D", "0:1"},
	{WIRE_T_TOP_K, "f:A+X,B,C,D = i:A,B,C,D", ""},
	{WIRE_T_LEAKY_RELU, HALF_MAP, "0~1"},
	{WIRE_T_TRI, "f:X,X,C,D = f:X,X,C,D", "0:0"},
	{WIRE_T_TRI, "f:X,X,C,D = f:X,X,C,D", "0:3"},
	{WIRE_T_FILL, HALF_MAP, "0~1"},
	{WIRE_T_FLASH_ATTN_EXT, "f:X,B,CE,D v:X,Y,C,D v:Y,Y,C,D = f:Y,CE,B,D", "0~1"},
	{WIRE_T_FLASH_ATTN_EXT, "f:X,L,CE,D k:X,Y,C,D k:M,Y,C,D h:Y,L,1,1 f:CE,1,1,1 = f:M,CE,L,D",
	 "0~1 2~3 3:10"},
	{WIRE_T_FLASH_ATTN_EXT,
	 "f:64,64+L,CE,D k:64,100,C,D k:64,100,C,D h:100,64+L,C,D = f:64,CE,64+L,D", "0~1 1~2"},
	{WIRE_T_FLASH_ATTN_EXT,
	 "f:32,1,CE,1 k:32,600+Y,C,1 k:32,600+Y,C,1 h:600+Y,1,1,1 = f:32,CE,1,1", "0~1"},
	{WIRE_T_FLASH_ATTN_EXT, "f:#,B,CE,D q:#,Y,C,D q:#,Y,C,D h:Y,B,1,1 = f:#,CE,B,D", "0~1"},
	{WIRE_T_SSM_CONV, "f:C-1+L,X,D,1 f:C,X,1,1 = f:X,L,D,1", ""},
	{WIRE_T_SSM_SCAN,
	 "f:X,B,EG,F f:B,EG,L,D f:EG,L,D,1 f:1,EG,1,1 f:X,G,L,D f:X,G,L,D i:D,1,1,1 = "
	 "f:BEGLD+CXBEGD,1,1,1",
	 "0:C"},
	{WIRE_T_SSM_SCAN,
	 "f:X,B,EG,F f:B,EG,L,D f:EG,L,D,1 f:X,EG,1,1 f:X,G,L,D f:X,G,L,D i:D,1,1,1 = "
	 "f:BEGLD+XBEGD,1,1,1",
	 "0:1"},
	{WIRE_T_WIN_PART, "f:X,AC-A+1,BC,1 = f:X,C,C,AB", "0:A 1:B 2:C"},
	{WIRE_T_WIN_UNPART, "f:X,C,C,AB = f:X,AC,BC,1", "0:C"},
	{WIRE_T_GET_REL_POS, "h:X,B+C-1,1,1 = h:X,B,C,1", ""},
	{WIRE_T_ADD_REL_POS, "f:AA,BC,D,1 f:A,B,C,D f:A,B,C,D = f:AA,BC,D,1", ""},
	{WIRE_T_RWKV_WKV6,
	 "f:X,C,DE,1 f:X,C,DE,1 f:X,C,DE,1 f:X,C,1,1 f:X,C,DE,1 f:XXC,D,1,1 = "
	 "f:XC,DE+XD,1,1",
	 ""},
	{WIRE_T_GATED_LINEAR_ATTN,
	 "f:X,C,DE,1 f:X,C,DE,1 f:X,C,DE,1 f:X,C,DE,1 f:XXC,D,1,1 = "
	 "f:XC,DE+XD,1,1",
	 "0~1"},
	{WIRE_T_RWKV_WKV7,
	 "f:64,C,DE,1 f:64,C,DE,1 f:64,C,DE,1 f:64,C,DE,1 f:64,C,DE,1 f:64,C,DE,1 "
	 "f:64(64)C,D,1,1 = f:64C,DE+64D,1,1",
	 ""},
	{WIRE_T_SOLVE_TRI, "f:X,X,C,D f:Y,X,C,D = f:Y,X,C,D", ""},
	{WIRE_T_GATED_DELTA_NET,
	 "f:X,B,L,D f:X,B,L,D f:X,BE,L,D f:1,BE,L,D f:1,BE,L,D f:X,X,BE,D = "
	 "f:XBE,LD+CXD,1,1",
	 "0:C"},
	{WIRE_T_GATED_DELTA_NET,
	 "f:X,B,L,D f:X,B,L,D f:X,BE,L,DF f:X,BE,L,DF f:1,BE,L,DF f:X,X,BE,DF = "
	 "f:XBE,LDF+XDF,1,1",
	 "0:1"},
	{WIRE_T_LIGHTNING_INDEXER, "f:#,B,L,D q:#,1,Y,D f:B,L,1,D h:Y,L,1,1 = f:Y,L,1,D", ""},
	{WIRE_T_DSV4_HC_COMB, "f:24,L,1,1 f:3,1,1,1 f:24,1,1,1 = f:4,4,L,1", "0~1 1:A"},
	{WIRE_T_DSV4_HC_PRE, "f:X,B,L,1 f:B,L,1,1 = f:X,L,1,1", "0~1"},
	{WIRE_T_DSV4_HC_PRE, "f:X,B,L,1 f:X,B,L,1 = f:X,L,1,1", "0~1 1:1"},
	{WIRE_T_DSV4_HC_POST, "f:X,L,1,1 f:X,B,L,1 f:B,L,1,1 = f:X,B,L,1", ""},
	{WIRE_T_DSV4_HC_POST, "f:X,L,1,1 f:X,B,L,1 f:B,L,1,1 f:B,B,L,1 = f:X,B,L,1", ""},
	{WIRE_T_UNARY, HALF_MAP, "0:?"},
	{WIRE_T_UNARY, MAP, "0:?"},
	{WIRE_T_CROSS_ENTROPY_LOSS, "f:X,B,C,D f:X,B,C,D = f:1,1,1,1", ""},
	{WIRE_T_CROSS_ENTROPY_LOSS_BACK, "f:1,1,1,1 f:X,B,C,D f:X,B,C,D = f:X,B,C,D", ""},
	{WIRE_T_OPT_STEP_ADAMW, "f:X,B,C,D f:X,B,C,D f:X,B,C,D f:X,B,C,D f:7,1,1,1 = f:X,B,C,D", "",
	 1},
	{WIRE_T_OPT_STEP_SGD, "f:X,B,C,D f:X,B,C,D f:2,1,1,1 = f:X,B,C,D", "", 1},
	{WIRE_T_GLU, "v:X,B,C,D v:X,B,C,D = v:X,B,C,D", "0:1"},
	{WIRE_T_GLU, "f:X,B,C,D f:X,B,C,D = f:X,B,C,D", "0:A-1"},
	{WIRE_T_GLU, "v:2X,B,C,D = v:X,B,C,D", "0:2 1:1"},
	{WIRE_T_GLU, "b:2X,B,C,D = b:X,B,C,D", "0:0"},
	{WIRE_T_GLU, "b:2X,B,C,D = b:X,B,C,D", "0:4"},
	{WIRE_T_GLU, "b:2X,B,C,D = b:X,B,C,D", "0:5"},
	{WIRE_T_GLU, "f:2X,B,C,D = f:X,B,C,D", "0:A+1 2~1 3~7"},
};

unsigned op_shapes_count(void)
{
	return sizeof(shapes) / sizeof(shapes[0]);
}

uint32_t op_shapes_op(unsigned shape)
{
	return shapes[shape].then ? WIRE_T_MUL : shapes[shape].op;
}

uint32_t op_random_below(struct op_random *r, uint32_t n)
{
	r->state = r->state * 6364136223846793005u + 1442695040888963407u;
	return n ? (uint32_t)(r->state >> 33) % n : 0;
}

/* ---- reading a shape ---- */

struct reader {
	const char *p;
	int32_t value[128];
	uint8_t type[128];
};

#define PICK(r, list) list[op_random_below(r, sizeof(list))]

static void choose(struct reader *in, struct op_random *r)
{
	bool large = op_random_below(r, 4) == 0;

	for (int c = 'A'; c <= 'Z'; c++)
		in->value[c] = 1 + (int32_t)op_random_below(r, c < 'L' ? 4 : 9);
	for (const char *p = "XYL"; *p; p++)
		in->value[(int)*p] = 1 + (int32_t)op_random_below(r, large ? 70 : 20);
	for (int i = 0; r->scale > 1 && i < 3; i++) {
		int32_t *value = &in->value[(int)"ABCDEFGHLMXYNO"[op_random_below(r, 14)]];
		int64_t scaled = *value * (1 + (int64_t)op_random_below(r, r->scale));

		*value = scaled < 1 << 30 ? (int32_t)scaled : 1 << 30;
	}
	in->value['?'] = (int32_t)op_random_below(r, WIRE_NUM_UNARY_OPS);
	in->value['#'] = 256 * (1 + (int32_t)op_random_below(r, r->scale > 1 ? 16 : 2));
	in->value['@'] = 1 << op_random_below(r, 8);
	in->type['f'] = T_F32;
	in->type['h'] = T_F16;
	in->type['b'] = T_BF16;
	in->type['i'] = T_I32;
	in->type['l'] = T_I64;
	in->type['v'] = PICK(r, floats);
	in->type['u'] = PICK(r, floats);
	in->type['k'] = PICK(r, halves);
	in->type['g'] = PICK(r, halves);
	in->type['j'] = PICK(r, indices);
	in->type['a'] = PICK(r, any_plain);
	in->type['r'] = PICK(r, repeatable);
	in->type['q'] = PICK(r, products);
	in->type['p'] = PICK(r, quants);
	in->type['w'] = PICK(r, writables);
}

static int64_t read_sum(struct reader *in);

static bool read_factor(struct reader *in, int64_t *v)
{
	if (isdigit(*in->p)) {
		for (*v = 0; isdigit(*in->p); in->p++)
			*v = *v * 10 + (*in->p - '0');
		return true;
	}
	if (*in->p == '(') {
		in->p++;
		*v = read_sum(in);
		in->p++;
		return true;
	}
	if (!isupper(*in->p) && *in->p != '#' && *in->p != '@' && *in->p != '?')
		return false;
	*v = in->value[(int)*in->p++];
	return true;
}

static int64_t read_product(struct reader *in)
{
	int64_t v = 1, factor;

	while (read_factor(in, &factor))
		v *= factor;
	return v;
}

static int64_t read_sum(struct reader *in)
{
	int64_t v = read_product(in);

	while (*in->p == '+' || *in->p == '-') {
		bool minus = *in->p++ == '-';
		int64_t next = read_product(in);

		v += minus ? -next : next;
	}
	return v;
}

static void make_dense(struct wire_tensor *t)
{
	t->nb[0] = op_shapes_types.bytes[t->type];
	t->nb[1] = (uint64_t)t->ne[0] / op_shapes_types.block[t->type] * t->nb[0];
	t->nb[2] = t->nb[1] * (uint64_t)t->ne[1];
	t->nb[3] = t->nb[2] * (uint64_t)t->ne[2];
}

static struct wire_tensor *read_tensor(struct reader *in, struct op_graph *g)
{
	struct wire_tensor *t = &g->t[g->n++];

	*t = (struct wire_tensor){.type = in->type[(int)*in->p], .buffer = g->n};
	in->p += 2;
	for (int i = 0; i < WIRE_MAX_DIMS; i++, in->p += *in->p == ',')
		t->ne[i] = read_sum(in);
	make_dense(t);
	return t;
}

static void read_params(struct reader *in, struct wire_tensor *t)
{
	while (*in->p) {
		int64_t index = 0;
		float f;

		for (; isdigit(*in->p); in->p++)
			index = index * 10 + (*in->p - '0');
		if (*in->p++ == '~') {
			f = (float)read_sum(in);
			memcpy(&t->params[index], &f, sizeof(f));
		} else {
			t->params[index] = (int32_t)read_sum(in);
		}
		in->p += *in->p == ' ';
	}
}

static void make_node(struct wire_tensor *t, uint32_t op)
{
	t->op = op;
	t->flags = WIRE_TENSOR_NODE | WIRE_TENSOR_COMPUTE;
}

/* Makes leaf @at a cast from a new one, which goes in front. */
static void make_cast(struct op_graph *g, uint32_t at)
{
	struct wire_tensor *t = g->t;

	memmove(t + 1, t, g->n++ * sizeof(*t));
	for (uint32_t i = 1; i < g->n; i++) {
		for (int s = 0; s < WIRE_MAX_SRC; s++)
			t[i].src[s] += t[i].src[s] != 0;
		t[i].view_src += t[i].view_src != 0;
	}
	*t = t[++at];
	t->type = T_F32;
	t->buffer = g->n;
	make_dense(t);
	make_node(&t[at], WIRE_T_CPY);
	t[at].src[0] = 1;
	t[at].src[1] = at + 1;
}

/* Sometimes an index is one that the graph computes. */
static void maybe_compute_index(struct op_graph *g, uint32_t node, struct op_random *r)
{
	const struct op_rule *rule = op_rule_find(g->t[node].op);
	uint32_t index = rule && rule->limit != OP_LIMIT_NONE ? g->t[node].src[rule->index] : 0;

	if (index && g->t[index - 1].type == OP_I32 && op_random_below(r, 4) == 0)
		make_cast(g, index - 1);
}

void op_shapes_make(struct op_graph *g, unsigned shape, struct op_random *r)
{
	const struct shape *s = &shapes[shape];
	uint32_t src[WIRE_MAX_SRC] = {0}, n_src = 0;
	struct reader in = {.p = s->tensors};
	struct wire_tensor *t;

	g->n = 0;
	choose(&in, r);
	for (; *in.p != '='; in.p += *in.p == ' ') {
		if (*in.p == '_') {
			n_src++;
			in.p++;
			continue;
		}
		read_tensor(&in, g);
		src[n_src++] = g->n;
	}
	in.p += 2;
	t = read_tensor(&in, g);
	make_node(t, s->op);
	memcpy(t->src, src, sizeof(src));
	if (s->view_of) {
		t->view_src = src[s->view_of - 1];
		t->buffer = g->t[t->view_src - 1].buffer;
	}
	in.p = s->params;
	read_params(&in, t);
	if (s->then) {
		uint32_t first = g->n;
		struct wire_tensor *mul;

		in.p = s->then;
		read_tensor(&in, g);
		mul = &g->t[g->n++];
		*mul = g->t[first - 1];
		make_node(mul, WIRE_T_MUL);
		memset(mul->src, 0, sizeof(mul->src));
		mul->src[0] = first;
		mul->src[1] = first + 1;
		mul->buffer = g->n;
	}
	maybe_compute_index(g, (uint32_t)(t - g->t), r);
	op_shapes_fit(g, UINT64_MAX);
}

/* ---- changing it ---- */

static bool is_viewed(const struct op_graph *g, uint32_t at)
{
	for (uint32_t i = 0; i < g->n; i++)
		if (g->t[i].view_src == at + 1)
			return true;
	return false;
}

void op_shapes_relayout(struct op_graph *g, struct op_random *r)
{
	for (uint32_t i = 0; i < g->n; i++) {
		struct wire_tensor *t = &g->t[i];
		uint32_t order[] = {1, 2, 3}, unit = op_shapes_types.bytes[t->type], k;
		uint64_t step;

		if (t->view_src || is_viewed(g, i) || op_random_below(r, 2))
			continue;
		step = t->nb[1] + (op_random_below(r, 2) ? unit * op_random_below(r, 5) : 0);
		for (int d = 0; d < 3; d++) { /* rows, planes and volumes in any order, with gaps */
			if (op_random_below(r, 2)) {
				k = op_random_below(r, 3);
				uint32_t swap = order[d];

				order[d] = order[k];
				order[k] = swap;
			}
		}
		for (int d = 0; d < 3; d++) {
			t->nb[order[d]] = step;
			step *= (uint64_t)t->ne[order[d]];
			step += op_random_below(r, 4) ? 0 : unit * op_random_below(r, 9);
		}
		if (op_random_below(r, 3) == 0)
			t->offset = (uint64_t)unit * op_random_below(r, 9);
		if (op_shapes_types.block[t->type] > 1)
			t->offset &= ~UINT64_C(1);
	}
	op_shapes_fit(g, UINT64_MAX);
}

static int64_t odd_number(struct op_random *r, int64_t was)
{
	static const int64_t often[] = {0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 64, 255, 256, 1024, -1};

	switch (op_random_below(r, 6)) {
	case 0:
		return was + 1;
	case 1:
		return was - 1;
	case 2:
		return was * 2;
	case 3:
		return was / 2;
	default:
		return often[op_random_below(r, sizeof(often) / sizeof(often[0]))];
	}
}

void op_shapes_mutate(struct op_graph *g, struct op_random *r)
{
	struct wire_tensor *t = &g->t[op_random_below(r, g->n)];
	struct wire_tensor *node = &g->t[g->n - 1];
	uint32_t d = op_random_below(r, WIRE_MAX_DIMS);

	switch (op_random_below(r, 10)) {
	case 0:
	case 1:
		t->ne[d] = odd_number(r, t->ne[d]);
		if (op_random_below(r, 2))
			make_dense(t);
		break;
	case 2:
		t->nb[d] = (uint64_t)odd_number(r, (int64_t)t->nb[d]);
		break;
	case 3:
		t->nb[d] = op_shapes_types.bytes[t->type] * op_random_below(r, 64);
		break;
	case 4:
		t->type = op_random_below(r, 43);
		if (!op_shapes_types.block[t->type])
			t->type = T_F32;
		if (op_random_below(r, 4))
			make_dense(t);
		break;
	case 5:
	case 6:
		d = op_random_below(r, op_random_below(r, 2) ? 4 : WIRE_MAX_PARAMS);
		node->params[d] = (int32_t)odd_number(r, node->params[d]);
		break;
	case 7:
		node->src[op_random_below(r, 7)] = op_random_below(r, g->n);
		break;
	case 8: /* the same dimension everywhere, as a program with an odd model would */
		for (uint32_t i = 0; i < g->n; i++)
			if (g->t[i].ne[d] == t->ne[d] && &g->t[i] != t) {
				g->t[i].ne[d] = t->ne[d] + 1;
				make_dense(&g->t[i]);
			}
		t->ne[d]++;
		make_dense(t);
		break;
	default: /* on top of another */
		if (node->view_src || !node->src[0])
			break;
		d = node->src[op_random_below(r, 2)];
		if (!d)
			break;
		node->buffer = g->t[d - 1].buffer;
		node->offset = g->t[d - 1].offset;
		break;
	}
}

bool op_shapes_fit(struct op_graph *g, uint64_t max)
{
	memset(g->buffer_bytes, 0, sizeof(g->buffer_bytes));
	for (uint32_t i = 0; i < g->n; i++) {
		const struct wire_tensor *t = &g->t[i];
		uint64_t end = t->offset + op_shapes_types.bytes[t->type];

		for (int d = 0; d < WIRE_MAX_DIMS; d++) {
			uint64_t n = (uint64_t)t->ne[d] / (d ? 1 : op_shapes_types.block[t->type]);

			if (t->ne[d] < 0 || t->ne[d] > 1 << 24 || t->nb[d] > UINT64_C(1) << 30)
				return false;
			end += (n ? n - 1 : 0) * t->nb[d];
		}
		if (end > max || t->buffer > OP_GRAPH_MAX_TENSORS)
			return false;
		if (end > g->buffer_bytes[t->buffer])
			g->buffer_bytes[t->buffer] = end;
	}
	return true;
}

static bool size_of(void *ctx, uint32_t buffer, uint64_t *bytes)
{
	const struct op_graph *g = ctx;

	*bytes = buffer <= OP_GRAPH_MAX_TENSORS ? g->buffer_bytes[buffer] : 0;
	return *bytes > 0;
}

struct graph_env op_shapes_env(struct op_graph *g)
{
	static const uint8_t all[32] = {255, 255, 255, 255, 255, 255, 255, 255,
					255, 255, 255, 255, 255, 255, 255, 255};

	return (struct graph_env){.types = &op_shapes_types,
				  .ops = all,
				  .unary = all,
				  .glu = all,
				  .buffer_size = size_of,
				  .ctx = g};
}
