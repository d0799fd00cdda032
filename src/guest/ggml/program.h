/* SPDX-License-Identifier: Apache-2.0
 *
 * program.h -- the ggml of the program this library was loaded into: which version it is, and the
 * few functions of it that tell its numbers. */
#ifndef PIL_PROGRAM_H
#define PIL_PROGRAM_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/ggml/abi.h"

struct program {
	char version_text[32];
	enum abi_generation generation; /* ABI_UNKNOWN: a version this library does not know */
	const char *(*op_name)(int op);
	const char *(*unary_op_name)(int op);
	const char *(*glu_op_name)(int op);
	int64_t (*blck_size)(int type);
	size_t (*type_size)(int type);
};

/* Looks for ggml around the code at @caller (the return address into it): in that object and what
 * it depends on, in the global scope, and in the symbol tables of the object's file and of the
 * executable, for programs that link ggml statically.  False if there is none. */
bool program_find(struct program *prog, const void *caller);

/* "0.27.0" (a suffix is ignored) into numbers and the generation that speaks it. */
enum abi_generation program_parse_version(const char *text, uint32_t version[3]);

/* Values of the symbols @names in the .symtab of the ELF file image @elf; 0 for those that are not
 * there.  Bounded by @len whatever the image says; false if it is no 64-bit ELF with a .symtab. */
bool program_parse_symtab(const uint8_t *elf, size_t len, const char *const *names, int n,
			  uint64_t *values);

#endif
