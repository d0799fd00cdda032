/* SPDX-License-Identifier: Apache-2.0 */
#include "guest/ggml/opmap.h"

#include <string.h>

#include "guest/ggml/program.h"

/* The name functions index an array without looking at its end.  The counts in ggml_abi.h are those
 * of every version that program.c accepts, and a list also ends at the name that is its last one
 * there. */
static void map_names(int16_t *out, int capacity, const char *(*name_of)(int), int count,
		      const char *last, const char *const *table, int n_table)
{
	for (int i = 0; i < capacity; i++)
		out[i] = -1;
	for (int i = 0; i < count; i++) {
		const char *name = name_of(i);

		if (!name)
			break;
		out[i] = (int16_t)wire_name_find(table, n_table, name);
		if (!strcmp(name, last))
			break;
	}
}

void opmap_init(struct opmap *map, const struct program *prog)
{
	map_names(map->op, OPMAP_MAX_OPS, prog->op_name, ABI_NUM_OPS, "GLU", wire_tensor_op_str,
		  WIRE_NUM_TENSOR_OPS);
	map_names(map->unary, OPMAP_MAX_SUB, prog->unary_op_name, ABI_NUM_UNARY, "TRUNC",
		  wire_unary_op_str, WIRE_NUM_UNARY_OPS);
	map_names(map->glu, OPMAP_MAX_SUB, prog->glu_op_name, ABI_NUM_GLU, "SWIGLU_CLAMP",
		  wire_glu_op_str, WIRE_NUM_GLU_OPS);
	for (int i = 0; i < ABI_NUM_TYPES; i++) {
		int64_t block = prog->blck_size(i);
		size_t bytes = prog->type_size(i);

		if (block <= 0 || block > 65536 || bytes == 0 || bytes > 65536)
			block = 0; /* a number that was retired */
		map->block[i] = (uint32_t)block;
		map->bytes[i] = block ? (uint32_t)bytes : 0;
	}
}

uint64_t opmap_nbytes(const struct opmap *map, const struct ggml_tensor *t)
{
	uint64_t n;
	int first;

	if (!opmap_type_known(map, t->type))
		return 0;
	for (int i = 0; i < ABI_MAX_DIMS; i++)
		if (t->ne[i] <= 0)
			return 0;
	if (map->block[t->type] == 1) {
		n = map->bytes[t->type];
		first = 0;
	} else {
		n = (uint64_t)t->ne[0] * t->nb[0] / map->block[t->type];
		first = 1;
	}
	for (int i = first; i < ABI_MAX_DIMS; i++)
		n += (uint64_t)(t->ne[i] - 1) * t->nb[i];
	return n;
}

static int sub_op(const int16_t *table, int32_t number)
{
	return number >= 0 && number < OPMAP_MAX_SUB ? table[number] : -1;
}

bool opmap_encode_leaf(const struct opmap *map, const struct ggml_tensor *t,
		       struct wire_tensor *out)
{
	if (!opmap_type_known(map, t->type))
		return false;
	memset(out, 0, sizeof(*out));
	out->type = (uint32_t)t->type;
	out->op = WIRE_T_NONE;
	out->flags = (uint32_t)(t->flags & ABI_FLAGS) << 1;
	for (int i = 0; i < ABI_MAX_DIMS; i++) {
		out->ne[i] = t->ne[i];
		out->nb[i] = t->nb[i];
	}
	memcpy(out->name, t->name, strnlen(t->name, sizeof(out->name) - 1));
	return true;
}

bool opmap_encode(const struct opmap *map, const struct ggml_tensor *t, struct wire_tensor *out)
{
	int op = opmap_op(map, t->op);

	if (op < 0 || !opmap_encode_leaf(map, t, out))
		return false;
	out->op = (uint32_t)op;
	memcpy(out->params, t->op_params, sizeof(out->params));
	if (op == WIRE_T_UNARY || op == WIRE_T_GLU) {
		int sub = sub_op(op == WIRE_T_GLU ? map->glu : map->unary, t->op_params[0]);

		if (sub < 0)
			return false;
		out->params[0] = sub;
	}
	return true;
}
