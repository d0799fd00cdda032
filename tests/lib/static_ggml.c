/* SPDX-License-Identifier: Apache-2.0
 *
 * static_ggml.c -- a program with a ggml that is in no dynamic symbol table, as one that links it
 * statically: loads the plugin that it is given, which must find that ggml and not know it. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"

const char *ggml_version(void);
const char *ggml_op_name(int op);
const char *ggml_unary_op_name(int op);
const char *ggml_glu_op_name(int op);
int64_t ggml_blck_size(int type);
size_t ggml_type_size(int type);

const char *ggml_version(void)
{
	return "0.99.7";
}

const char *ggml_op_name(int op)
{
	return op ? "ADD" : "NONE";
}

const char *ggml_unary_op_name(int op)
{
	return op ? "SGN" : "ABS";
}

const char *ggml_glu_op_name(int op)
{
	return op ? "GEGLU" : "REGLU";
}

int64_t ggml_blck_size(int type)
{
	return type + 1;
}

size_t ggml_type_size(int type)
{
	return (size_t)type + 1;
}

int main(int argc, char **argv)
{
	void *plugin = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
	void *symbol = plugin ? dlsym(plugin, "ggml_backend_init") : NULL;
	void *(*init)(void);

	if (!symbol) {
		fprintf(stderr, "%s\n", plugin ? "not a plugin" : dlerror());
		return EXIT_FAILURE;
	}
	memcpy(&init, &symbol, sizeof(init));
	return init() ? EXIT_FAILURE : EXIT_SUCCESS;
}
