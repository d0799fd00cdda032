/* SPDX-License-Identifier: Apache-2.0
 *
 * The APIs that this executor can serve: one line each. */
#include "exec/api.h"

#include "exec/ggml/commands.h"
#include "exec/null/null.h"

const struct exec_api *const exec_apis[] = {
	&exec_api_ggml,
	&exec_api_null,
	NULL,
};

const struct exec_api *exec_api_find(uint64_t id)
{
	for (int i = 0; exec_apis[i]; i++)
		if (exec_apis[i]->wire->id == id)
			return exec_apis[i];
	return NULL;
}
