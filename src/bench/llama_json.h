/* SPDX-License-Identifier: Apache-2.0
 *
 * llama_json.h -- what `llama-bench -o json` prints.  It may come out of a machine, so it is
 * checked like any peer's data. */
#ifndef PIL_LLAMA_JSON_H
#define PIL_LLAMA_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"

enum { LLAMA_MAX_TESTS = 8 };

struct llama_test {
	char name[32]; /* "pp512", "tg128", "pp512+tg128" */
	double tokens_per_s;
};

struct llama_run {
	struct llama_test tests[LLAMA_MAX_TESTS];
	int n_tests;          /* >= 1 */
	char model_type[128]; /* "gemma3 270M Q4_K - Medium"; printable */
	char build[64];       /* what it was built of; "": it does not say; printable */
	uint64_t model_bytes, model_params;
	uint64_t n_threads;
	char backends[128]; /* its ggml's, by commas; "CPU" where there is no other; printable */
	char gpus[256];     /* what its ggml takes for GPUs, for people; "": none; printable */
};

/* 0, or -EPROTO with the reason. */
int llama_json_parse(const char *text, size_t len, struct llama_run *run,
		     struct pil_err *err) PIL_MUST_CHECK;

/* Is @name one of the back ends that had devices for this run? */
bool llama_run_has_backend(const struct llama_run *run, const char *name);

#endif
