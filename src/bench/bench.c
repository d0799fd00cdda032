/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation.  A machine under test shares its host with whatever else runs there, and
 * clocks, caches and neighbours drift over minutes.  So each round measures native and inside right
 * after each other, and the ratio is taken per round: what slows a round down slows both of its
 * halves.  Who is first changes every round (A B B A ...), since a host may give whoever comes
 * first more speed: a processor that was idle may clock higher, a virtual one may have time saved
 * up. llama-bench itself repeats nothing (-r 1); it still warms up before it measures, as it always
 * does.
 *
 * Load time: llama-bench does not report it, and what other programs report starts at different
 * points.  What a person waits for is taken instead: wall time from exec to exit of a llama-bench
 * that loads the model and generates one token without warm-up.  Inside, that includes entering
 * the running machine and reaching the device; outside, starting bwrap.  The speed rounds come
 * first, so the file is in the page cache for both.
 *
 * A distribution has no driver, by design, and native needs one.  For a device that is not the CPU,
 * native runs the distribution's llama-bench and libraries on the tree its executor is jailed in.
 *
 * A program that finds no device goes on with its CPU, without a word in its figures: beside the
 * reference device, such a ratio would be a fine 1.00.  So each run must say which back ends it
 * had: inside Pillion's, outside anything else.
 *
 * A round is worth nothing when the host did something else as well (busy.h).  Such a round is
 * measured again, as often as there are rounds and a few times more; then the host is too busy, and
 * no figure is given.
 *
 * The model must be visible on both sides.  Outside it is bound into the tree; inside, a model
 * that lies in no folder the machine shares is copied there for the time of the bench. */
#include "bench/bench.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "bench/busy.h"
#include "bench/capture.h"
#include "bench/llama_json.h"

#define PLUGIN       "Pillion" /* what the plugin's back end is called in ggml */
#define NATIVE_MODEL "/tmp/pillion-bench.gguf"
#define NATIVE_TREE  "/tmp/pillion-tree"
#if defined(__aarch64__)
#define LIBS "/usr/lib/aarch64-linux-gnu"
#else
#define LIBS "/usr/lib/x86_64-linux-gnu"
#endif

enum { RUN_TIMEOUT_MS = 30 * 60 * 1000, COPY_TIMEOUT_MS = 10 * 60 * 1000, SPARE_ROUNDS = 3 };

/* A round in which memory was slower than this part of the fastest seen is a disturbed one. */
#define MIN_BANDWIDTH 0.7

static const char native_path[] = NATIVE_TREE "/usr/bin:/usr/local/bin:/usr/bin:/bin";

enum side { NATIVE, INSIDE };

struct bench {
	const struct bench_opts *opts;
	char *model;   /* host path without links; heap */
	char *copy;    /* path of the copy in the machine, or NULL; heap */
	int done, all; /* steps, for progress */
	struct busy_probe *probe;
	double elsewhere_s, available_s; /* CPU time over all parts that were measured */
};

static void bench_finish(struct bench *b)
{
	free(b->model);
	free(b->copy);
	busy_probe_destroy(b->probe);
}
#define _auto_bench __attribute__((cleanup(bench_finish)))

static void step(struct bench *b, const char *text)
{
	if (b->opts->progress)
		b->opts->progress(text, b->done, b->all);
	b->done++;
}

/* What a device needs beside the program: its drivers' tree as the root, the program's own tree
 * and libraries below it, and the settings its executor gets. */
static void add_device(struct argv *a, const struct bench_opts *o)
{
	const char *dir = o->ggml_dir ? o->ggml_dir : NATIVE_TREE;

	argv_add_all(a, (const char *const[]){"--ro-bind", o->rootfs, NATIVE_TREE, "--setenv",
					      "LD_LIBRARY_PATH", NULL});
	argv_addf(a, "%s:" NATIVE_TREE LIBS ":" NATIVE_TREE LIBS "/llama", dir);
	for (int i = 0; i < o->n_env; i++) {
		const char *value = strchr(o->env[i], '=');

		if (!value)
			continue;
		argv_add(a, "--setenv");
		argv_addf(a, "%.*s", (int)(value - o->env[i]), o->env[i]);
		argv_add(a, value + 1);
	}
}

static void add_native(struct argv *a, const struct bench *b)
{
	const struct bench_opts *o = b->opts;

	argv_add_all(a, (const char *const[]){"bwrap", "--die-with-parent", "--unshare-pid",
					      "--as-pid-1", "--ro-bind", NULL});
	argv_add(a, o->device_root ? o->device_root : o->rootfs);
	argv_add_all(a, (const char *const[]){"/", "--dev-bind", "/dev", "/dev", "--ro-bind",
					      "/sys", "/sys", "--proc", "/proc", "--tmpfs", "/tmp",
					      "--unsetenv", "GGML_BACKEND_PATH", NULL});
	argv_add_all(a, (const char *const[]){"--setenv", "PATH", native_path, NULL});
	if (o->device_root)
		add_device(a, o);
	argv_add_all(a, (const char *const[]){"--ro-bind", b->model, NATIVE_MODEL, "--", NULL});
}

static void add_inside(struct argv *a, const struct bench *b)
{
	argv_add_all(a, (const char *const[]){b->opts->pillion, "-d", b->opts->machine, "-u",
					      "root", "--cd", "/", "-e", NULL});
}

static void add_llama_bench(struct argv *a, const struct bench *b, enum side side)
{
	const char *device = side == NATIVE ? b->opts->native_device : b->opts->inside_device;
	const char *seen = b->opts->inside_model ? b->opts->inside_model : b->copy;
	const char *model = side == NATIVE ? NATIVE_MODEL : seen;

	if (side == NATIVE)
		add_native(a, b);
	else
		add_inside(a, b);
	argv_add_all(a, (const char *const[]){"llama-bench", "-m", model, "-r", "1", "-o", "json",
					      NULL});
	if (device)
		argv_add_all(a, (const char *const[]){"-dev", device, NULL});
}

/* Did the program compute where its side of the comparison is to compute? */
static int check_device(const struct bench *b, enum side side, const struct llama_run *run,
			struct pil_err *err)
{
	const struct bench_opts *o = b->opts;
	bool plugin = llama_run_has_backend(run, PLUGIN);

	if (side == INSIDE && !plugin) {
		pil_err_hint(err,
			     "pillion --status shows the devices, and this, why there are none "
			     "inside: pillion -d %s -e llama-bench --list-devices",
			     o->machine);
		return pil_err_say(err, ENODEV,
				   "llama-bench did not use pillion's device: its back ends should "
				   "include " PLUGIN ", and are: %s",
				   run->backends);
	}
	if (side == NATIVE && plugin) {
		pil_err_hint(err, "pillion bench measures on the host, not in a machine");
		return pil_err_say(err, EBUSY,
				   "llama-bench used pillion's device itself: its back ends should "
				   "not include " PLUGIN ", and are: %s",
				   run->backends);
	}
	if (side == NATIVE && !o->native_device && run->gpus[0])
		return pil_err_say(err, EBUSY,
				   "llama-bench should have used the host's CPU, as the device "
				   "inside does, and used: %s (%s)",
				   run->gpus, run->backends);
	return 0;
}

static int run_llama(const struct bench *b, struct argv *a, enum side side, struct llama_run *run,
		     double *seconds, struct pil_err *err)
{
	struct capture got;
	int ret = capture_run(&(struct capture_opts){.argv = a->v,
						     .stdin_fd = -1,
						     .timeout_ms = RUN_TIMEOUT_MS,
						     .stop = b->opts->stop},
			      &got, err);

	if (!ret)
		ret = llama_json_parse(got.out, got.len, run, err);
	if (!ret)
		ret = check_device(b, side, run, err);
	*seconds = got.seconds;
	free(got.out);
	if (ret && ret != -EINTR)
		pil_err_prefix(err, side == NATIVE ? "native" : "inside '%s'", b->opts->machine);
	return ret;
}

/* One half of a round: all tests in one llama-bench. */
static int measure_speed(struct bench *b, enum side side, int round, struct bench_report *report,
			 struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	struct llama_run run;
	double seconds;
	int ret;

	step(b, side == NATIVE ? "speed, native" : "speed, inside");
	add_llama_bench(&a, b, side);
	argv_addf(&a, "-p");
	argv_addf(&a, "%u", b->opts->n_prompt);
	argv_addf(&a, "-n");
	argv_addf(&a, "%u", b->opts->n_gen);
	ret = run_llama(b, &a, side, &run, &seconds, err);
	if (ret)
		return ret;
	if (side == INSIDE)
		memcpy(report->build_inside, run.build, sizeof(run.build));
	if (round == 0 && side == NATIVE) {
		memcpy(report->build_native, run.build, sizeof(run.build));
		memcpy(report->model_type, run.model_type, sizeof(run.model_type));
		report->model_bytes = run.model_bytes;
		report->model_params = run.model_params;
		report->n_tests = run.n_tests;
		for (int i = 0; i < run.n_tests; i++)
			memcpy(report->tests[i].name, run.tests[i].name, sizeof(run.tests[i].name));
	}
	if (run.n_tests != report->n_tests)
		return pil_err_say(err, EPROTO, "llama-bench ran %d tests, then %d",
				   report->n_tests, run.n_tests);
	for (int i = 0; i < run.n_tests; i++) {
		struct bench_test *test = &report->tests[i];

		if (strcmp(test->name, run.tests[i].name) != 0)
			return pil_err_say(err, EPROTO, "llama-bench ran test %s, then %s",
					   test->name, run.tests[i].name);
		(side == NATIVE ? test->native : test->inside)[round] = run.tests[i].tokens_per_s;
	}
	return 0;
}

static int measure_load(struct bench *b, enum side side, int round, struct bench_report *report,
			struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	struct llama_run run;

	step(b, side == NATIVE ? "load, native" : "load, inside");
	add_llama_bench(&a, b, side);
	argv_add_all(&a, (const char *const[]){"-p", "0", "-n", "1", "--no-warmup", NULL});
	return run_llama(b, &a, side, &run,
			 &(side == NATIVE ? report->load_native : report->load_inside)[round], err);
}

typedef int measure_fn(struct bench *b, enum side side, int round, struct bench_report *report,
		       struct pil_err *err);

static void note_bandwidth(struct bench_host *host, double bytes_per_s, double *slowest)
{
	if (bytes_per_s <= 0)
		return;
	if (!host->min_bytes_per_s || bytes_per_s < host->min_bytes_per_s)
		host->min_bytes_per_s = bytes_per_s;
	if (bytes_per_s > host->max_bytes_per_s)
		host->max_bytes_per_s = bytes_per_s;
	if (!*slowest || bytes_per_s < *slowest)
		*slowest = bytes_per_s;
}

/* Native and inside, once each; who is first changes every round.  @disturbed: the host did
 * something else meanwhile. */
static int measure_round(struct bench *b, measure_fn *measure, int round,
			 struct bench_report *report, bool *disturbed, struct pil_err *err)
{
	double slowest = 0;

	*disturbed = false;
	for (int half = 0; half < 2; half++) {
		enum side side = (half + round) % 2 ? INSIDE : NATIVE;
		const char *const *ours = side == INSIDE ? b->opts->pid_files : NULL;
		struct busy_mark from, to;
		int ret;

		busy_mark_take(&from, b->probe, ours);
		ret = measure(b, side, round, report, err);
		if (ret)
			return ret;
		busy_mark_take(&to, NULL, ours);
		b->elsewhere_s += busy_elsewhere_s(&from, &to);
		b->available_s += busy_available_s(&from, &to);
		*disturbed = *disturbed || busy_disturbed(&from, &to);
		note_bandwidth(&report->host, from.bytes_per_s, &slowest);
	}
	*disturbed = *disturbed || slowest < MIN_BANDWIDTH * report->host.max_bytes_per_s;
	return 0;
}

static int measure_rounds(struct bench *b, measure_fn *measure, struct bench_report *report,
			  struct pil_err *err)
{
	int spare = b->opts->n_rounds + SPARE_ROUNDS;

	for (int round = 0; round < b->opts->n_rounds;) {
		bool disturbed;
		int ret = measure_round(b, measure, round, report, &disturbed, err);

		if (ret)
			return ret;
		if (!disturbed || b->opts->even_if_busy) {
			report->host.n_kept += disturbed;
			round++;
		} else if (spare-- > 0) {
			report->host.n_dropped++;
			b->all += 2;
		} else {
			report->host.busy = true;
			return 0;
		}
	}
	return 0;
}

static int measure(struct bench *b, struct bench_report *report, struct pil_err *err)
{
	int ret = measure_rounds(b, measure_speed, report, err);

	if (!ret && !report->host.busy)
		ret = measure_rounds(b, measure_load, report, err);
	if (b->available_s > 0)
		report->host.elsewhere = b->elsewhere_s / b->available_s;
	return ret;
}

/* Runs a shell line in the machine with @path as its $0. */
static int shell_inside(const struct bench *b, const char *line, const char *path, int stdin_fd,
			const volatile sig_atomic_t *stop, struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	struct capture got;
	int ret;

	add_inside(&a, b);
	argv_add_all(&a, (const char *const[]){"/bin/sh", "-c", line, path, NULL});
	ret = capture_run(&(struct capture_opts){.argv = a.v,
						 .stdin_fd = stdin_fd,
						 .timeout_ms = COPY_TIMEOUT_MS,
						 .stop = stop},
			  &got, err);
	free(got.out);
	return ret;
}

static int bring_model(struct bench *b, struct pil_err *err)
{
	_auto_fd int fd = -1;
	int ret;

	if (b->opts->inside_model)
		return 0;
	assert(b->model); /* find_model() */
	step(b, "copying the model into the machine");
	fd = open(b->model, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return pil_err_set(err, errno, "open model '%s'", b->model);
	b->copy = str_printf("/var/tmp/pillion-bench-%d.gguf", (int)getpid());
	ret = shell_inside(b, "cat >\"$0\"", b->copy, fd, b->opts->stop, err);
	if (ret && ret != -EINTR)
		pil_err_prefix(err, "copy '%s' into '%s'", b->model, b->opts->machine);
	return ret;
}

/* The file that the user named, so that no error names a copy or waits for one. */
static int find_model(struct bench *b, struct pil_err *err)
{
	_auto_fd int fd = open(b->opts->model, O_RDONLY | O_CLOEXEC);
	char magic[4];

	if (fd < 0) {
		pil_err_hint(err, "ls ~/.cache/pillion/models shows those that machines see");
		return pil_err_set(err, errno, "open model '%s'", b->opts->model);
	}
	if (read(fd, magic, sizeof(magic)) != sizeof(magic) || memcmp(magic, "GGUF", 4) != 0) {
		pil_err_hint(err, "llama-bench reads GGUF files alone");
		return pil_err_say(err, EINVAL, "model '%s': it is no GGUF file", b->opts->model);
	}
	b->model = realpath(b->opts->model, NULL);
	return b->model ? 0 : pil_err_set(err, errno, "open model '%s'", b->opts->model);
}

int bench_run(const struct bench_opts *opts, struct bench_report *report, struct pil_err *err)
{
	_auto_bench struct bench b = {.opts = opts};
	int ret;

	*report = (struct bench_report){.n_rounds = opts->n_rounds};
	b.all = 4 * opts->n_rounds + (opts->inside_model ? 0 : 1);
	ret = find_model(&b, err);
	if (ret)
		return ret;
	b.probe = busy_probe_create();
	ret = bring_model(&b, err);
	if (!ret)
		ret = measure(&b, report, err);
	/* also after an interrupt, so without a look at the stop flag */
	if (b.copy && shell_inside(&b, "rm -f \"$0\"", b.copy, -1, NULL, ret ? NULL : err) && !ret)
		ret = pil_err_prefix(err, "remove the model's copy from '%s'", opts->machine);
	return ret;
}
