/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads the report of llama-bench with jansson.  Each field is checked for its type and its range;
 * a report with a wrong field is refused as a whole. */
#include "bench/llama_json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <jansson.h>

#include "base/str.h"

enum { MAX_TOKENS = 100000000 };

static void name_test(struct llama_test *test, json_int_t n_prompt, json_int_t n_gen)
{
	if (n_prompt && n_gen)
		snprintf(test->name, sizeof(test->name), "pp%d+tg%d", (int)n_prompt, (int)n_gen);
	else if (n_prompt)
		snprintf(test->name, sizeof(test->name), "pp%d", (int)n_prompt);
	else
		snprintf(test->name, sizeof(test->name), "tg%d", (int)n_gen);
}

static int parse_test(json_t *item, struct llama_run *run, struct pil_err *err)
{
	struct llama_test *test = &run->tests[run->n_tests];
	json_int_t n_prompt, n_gen, bytes, params, threads;
	const char *type, *backends, *gpus, *build = "";
	json_error_t why;
	double tps;

	if (json_unpack_ex(item, &why, 0, "{s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:F, s?s}",
			   "n_prompt", &n_prompt, "n_gen", &n_gen, "model_size", &bytes,
			   "model_n_params", &params, "n_threads", &threads, "model_type", &type,
			   "backends", &backends, "gpu_info", &gpus, "avg_ts", &tps, "build_commit",
			   &build))
		return pil_err_say(err, EPROTO, "llama-bench: %s", why.text);
	if (n_prompt < 0 || n_prompt > MAX_TOKENS || n_gen < 0 || n_gen > MAX_TOKENS ||
	    n_prompt + n_gen == 0 || bytes < 0 || params < 0 || threads < 0)
		return pil_err_say(err, EPROTO, "llama-bench: a number is out of range");
	if (!isfinite(tps) || tps <= 0)
		return pil_err_say(err, EPROTO, "llama-bench: it measured no speed");
	str_escape(run->backends, sizeof(run->backends), backends);
	if (strcmp(run->backends, backends) != 0) /* cut or unprintable, it could hide a name */
		return pil_err_say(err, EPROTO, "llama-bench: its back ends are no list of names");
	name_test(test, n_prompt, n_gen);
	test->tokens_per_s = tps;
	str_escape(run->model_type, sizeof(run->model_type), type);
	str_escape(run->gpus, sizeof(run->gpus), gpus);
	str_escape(run->build, sizeof(run->build), build);
	run->model_bytes = (uint64_t)bytes;
	run->model_params = (uint64_t)params;
	run->n_threads = (uint64_t)threads;
	run->n_tests++;
	return 0;
}

int llama_json_parse(const char *text, size_t len, struct llama_run *run, struct pil_err *err)
{
	json_error_t why;
	json_auto_t *root = json_loadb(text, len, 0, &why);

	*run = (struct llama_run){0};
	if (!root)
		return pil_err_say(err, EPROTO, "llama-bench: not JSON: line %d: %s", why.line,
				   why.text);
	if (!json_is_array(root) || json_array_size(root) < 1 ||
	    json_array_size(root) > LLAMA_MAX_TESTS)
		return pil_err_say(err, EPROTO, "llama-bench: not a list of 1 to %d tests",
				   LLAMA_MAX_TESTS);
	for (size_t i = 0; i < json_array_size(root); i++) {
		int ret = parse_test(json_array_get(root, i), run, err);

		if (ret)
			return ret;
	}
	return 0;
}

bool llama_run_has_backend(const struct llama_run *run, const char *name)
{
	size_t len = strlen(name);

	for (const char *at = run->backends; *at;) {
		size_t n = strcspn(at, ",");

		if (n == len && !memcmp(at, name, n))
			return true;
		at += n + (at[n] == ',');
	}
	return false;
}
