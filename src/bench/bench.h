/* SPDX-License-Identifier: Apache-2.0
 *
 * bench.h -- the speed of a model in a machine beside its speed outside, measured in turn.
 *
 * Native is the machine's own llama-bench, run from the machine's own file tree on the host's
 * kernel: no machine, no plugin, all of its defaults.  Inside is the same program in the machine,
 * with nothing set by hand. */
#ifndef PIL_BENCH_H
#define PIL_BENCH_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/err.h"
#include "bench/stats.h"

#define BENCH_VERDICT 0.97 /* the reported figure to beat; the project's own aim is 0.99 */

enum { BENCH_MAX_TESTS = 8 };

struct bench_opts {
	const char *pillion;      /* the program that runs commands in machines */
	const char *model;        /* host path */
	const char *inside_model; /* the same file as the machine sees it; NULL: it does not */
	const char *machine;      /* distro name */
	const char *rootfs;       /* its file tree on the host */
	const char *device_root;  /* where the device's drivers are; NULL: none are needed */
	const char *ggml_dir;     /* below it, the ggml to use; NULL: its own */
	char *const *env;         /* n_env "NAME=VALUE" settings of the device */
	int n_env;
	const char *native_device; /* ggml's name of it outside; NULL: what programs choose */
	const char *inside_device; /* ggml's name of it inside; NULL: what programs choose */
	unsigned n_prompt, n_gen;  /* either may be 0 */
	int n_rounds;              /* 1 to STATS_MAX */
	/* Files that hold the pids of the processes that serve the machine; NULL-terminated. */
	const char *const *pid_files;
	bool even_if_busy; /* keep the rounds that something else on the host disturbed */
	const volatile sig_atomic_t *stop; /* nonzero: clean up and fail with -EINTR; or NULL */
	void (*progress)(const char *text, int done, int all); /* or NULL */
};

struct bench_test {
	char name[32];                               /* "pp512" */
	double native[STATS_MAX], inside[STATS_MAX]; /* tokens per second, one per round */
};

/* What else the host did during the measurement. */
struct bench_host {
	bool busy;        /* too much: there are no figures */
	int n_dropped;    /* disturbed rounds that were measured again */
	int n_kept;       /* disturbed rounds that the figures contain (even_if_busy) */
	double elsewhere; /* share of all CPU time; of the dropped rounds too if @busy */
	double min_bytes_per_s, max_bytes_per_s; /* of memory, one thread; 0: unknown */
};

struct bench_report {
	struct bench_host host;
	char model_type[128];
	char build_native[64], build_inside[64]; /* of llama-bench */
	uint64_t model_bytes, model_params;
	int n_rounds, n_tests;
	struct bench_test tests[BENCH_MAX_TESTS];
	double load_native[STATS_MAX], load_inside[STATS_MAX]; /* seconds, one per round */
};

/* 0 or -errno; takes minutes.  Fails when a side did not compute on the device it is to show.
 * Leaves nothing in the machine.  A round that something else on the host disturbed is measured
 * again; when too many are, @report->host.busy is set and the report has no figures. */
int bench_run(const struct bench_opts *opts, struct bench_report *report,
	      struct pil_err *err) PIL_MUST_CHECK;

#endif
