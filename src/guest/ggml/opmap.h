/* SPDX-License-Identifier: Apache-2.0
 *
 * opmap.h -- the program's numbers for operations, turned into those of the wire; and how its types
 * are laid out. */
#ifndef PIL_OPMAP_H
#define PIL_OPMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "api/ggml/ggml.h"
#include "api/ggml/tensor_ops.h"
#include "guest/ggml/abi.h"

struct program;

enum { OPMAP_MAX_OPS = 128, OPMAP_MAX_SUB = 64 };

struct opmap {
	int16_t op[OPMAP_MAX_OPS]; /* enum wire_tensor_op, -1 unknown */
	int16_t unary[OPMAP_MAX_SUB];
	int16_t glu[OPMAP_MAX_SUB];
	uint32_t block[ABI_NUM_TYPES]; /* elements; 0: no such type */
	uint32_t bytes[ABI_NUM_TYPES];
};

/* Asks @prog (of a known generation) for every name and size once. */
void opmap_init(struct opmap *map, const struct program *prog);

static inline int opmap_op(const struct opmap *map, int op)
{
	return op >= 0 && op < OPMAP_MAX_OPS ? map->op[op] : -1;
}

static inline bool opmap_type_known(const struct opmap *map, int type)
{
	return type >= 0 && type < ABI_NUM_TYPES && map->block[type];
}

/* As ggml_nbytes(); 0 for a type that is unknown or a tensor without elements. */
uint64_t opmap_nbytes(const struct opmap *map, const struct ggml_tensor *t);

/* Fills the fields of @out that need no other tensor: type, op, flags, shape, params, name.  False
 * if its operation or type has no number on the wire.  A leaf is data: its operation is NONE. */
bool opmap_encode(const struct opmap *map, const struct ggml_tensor *t, struct wire_tensor *out);
bool opmap_encode_leaf(const struct opmap *map, const struct ggml_tensor *t,
		       struct wire_tensor *out);

#endif
