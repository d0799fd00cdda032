/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program in a machine may print in place of llama-bench's JSON. */
#include <stdint.h>
#include <stdlib.h>

#include "bench/llama_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct llama_run run;
	struct pil_err err = {0};

	if (llama_json_parse((const char *)data, size, &run, &err))
		return 0;
	if (run.n_tests < 1 || llama_run_has_backend(&run, "BLAS,Pillion"))
		abort(); /* a name has no comma in it */
	(void)llama_run_has_backend(&run, "Pillion");
	return 0;
}
