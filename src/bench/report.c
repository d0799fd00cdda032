/* SPDX-License-Identifier: Apache-2.0
 *
 * report.c -- a bench report as a table, as JSON and as a picture.  Without figures (the host was
 * busy), table and JSON say so and there is no picture. */
#include "bench/report.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <libsmartcols.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"

enum { COL_TEST, COL_NATIVE, COL_INSIDE, COL_RATIO, COL_RANGE, NUM_COLS };

static const struct column {
	const char *name;
	int flags;
} columns[] = {
	[COL_TEST] = {"TEST", 0},
	[COL_NATIVE] = {"NATIVE", SCOLS_FL_RIGHT},
	[COL_INSIDE] = {"INSIDE", SCOLS_FL_RIGHT},
	[COL_RATIO] = {"RATIO", SCOLS_FL_RIGHT},
	[COL_RANGE] = {"MIN..MAX", SCOLS_FL_RIGHT},
};
static_assert(ARRAY_SIZE(columns) == NUM_COLS, "columns");

enum { PLOT_TIMEOUT_MS = 60000, MORE_ROUNDS = 20 };

static struct stats test_ratio(const struct bench_report *report, int i)
{
	return stats_of_ratio(report->tests[i].inside, report->tests[i].native, report->n_rounds);
}

bool report_passed(const struct bench_report *report)
{
	for (int i = 0; i < report->n_tests; i++)
		if (test_ratio(report, i).median < BENCH_VERDICT)
			return false;
	return true;
}

/* ---- table ---- */

static void set_cell(struct libscols_line *line, size_t col, char *text) /* takes @text */
{
	if (scols_line_refer_data(line, col, text))
		abort(); /* only without memory */
}

static int add_row(struct libscols_table *table, const char *name, const char *unit, int digits,
		   const double *native, const double *inside, int n)
{
	struct libscols_line *line = scols_table_new_line(table, NULL);
	struct stats a = stats_of(native, n), b = stats_of(inside, n);
	struct stats r = stats_of_ratio(inside, native, n);

	if (!line)
		return -ENOMEM;
	set_cell(line, COL_TEST, str_printf("%s", name));
	set_cell(line, COL_NATIVE,
		 str_printf("%.*f +- %.*f %s", digits, a.median, digits, a.deviation, unit));
	set_cell(line, COL_INSIDE,
		 str_printf("%.*f +- %.*f %s", digits, b.median, digits, b.deviation, unit));
	set_cell(line, COL_RATIO, str_printf("%.3f", r.median));
	set_cell(line, COL_RANGE, str_printf("%.3f..%.3f", r.min, r.max));
	return 0;
}

static int fill_table(struct libscols_table *table, const struct bench_report *report)
{
	for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
		if (!scols_table_new_column(table, columns[i].name, 0, columns[i].flags))
			return -ENOMEM;
	for (int i = 0; i < report->n_tests; i++) {
		const struct bench_test *t = &report->tests[i];

		if (add_row(table, t->name, "t/s", 1, t->native, t->inside, report->n_rounds))
			return -ENOMEM;
	}
	return add_row(table, "load", "s", 2, report->load_native, report->load_inside,
		       report->n_rounds);
}

static void print_busy(FILE *f, const struct bench_host *host)
{
	fprintf(f,
		"not measured: the machine was busy, %.0f %% of its CPU time went elsewhere "
		"(memory: %.1f to %.1f GB/s)\n",
		100 * host->elsewhere, host->min_bytes_per_s / 1e9, host->max_bytes_per_s / 1e9);
	fprintf(f, "hint: stop what else runs here, or measure all the same: --even-if-busy\n");
}

static void print_host(FILE *f, const struct bench_host *host)
{
	fprintf(f, "host: %.1f %% of its CPU time went elsewhere", 100 * host->elsewhere);
	if (host->max_bytes_per_s > 0)
		fprintf(f, ", memory read at %.1f to %.1f GB/s", host->min_bytes_per_s / 1e9,
			host->max_bytes_per_s / 1e9);
	if (host->n_dropped)
		fprintf(f, ", %d disturbed round%s measured again", host->n_dropped,
			host->n_dropped == 1 ? "" : "s");
	fputc('\n', f);
}

static void print_verdict(FILE *f, const struct bench_report *report)
{
	const struct bench_test *worst = NULL;
	struct stats r = {.median = INFINITY};
	int n = report->n_rounds;

	for (int i = 0; i < report->n_tests; i++) {
		if (test_ratio(report, i).median >= r.median)
			continue;
		r = test_ratio(report, i);
		worst = &report->tests[i];
	}
	print_host(f, &report->host);
	if (report->host.n_kept) {
		fprintf(f, "verdict: none: the machine was busy in %d of the rounds\n",
			report->host.n_kept);
		return;
	}
	fprintf(f, "verdict: %s: %.1f %% of native at least, %.0f %% is the figure to beat\n",
		report_passed(report) ? "passed" : "missed", 100 * r.median, 100 * BENCH_VERDICT);
	if (strcmp(report->build_native, report->build_inside) != 0)
		fprintf(f,
			"note: llama-bench is of build '%s' outside and of '%s' inside, which the "
			"ratio compares, too\n",
			report->build_native, report->build_inside);
	if (worst && n < STATS_MAX &&
	    !stats_ratio_decides(worst->inside, worst->native, n, BENCH_VERDICT))
		fprintf(f,
			"note: not certain: %d round%s of %s between %.1f and %.1f %%; -r %d tells "
			"more\n",
			n, n == 1 ? "" : "s", worst->name, 100 * r.min, 100 * r.max,
			n < MORE_ROUNDS ? MORE_ROUNDS : STATS_MAX);
}

static void print_head(FILE *f, const struct bench_report *report, const struct report_names *names)
{
	char size[32];

	fprintf(f, "model    %s, %s\n", report->model_type,
		str_bytes(size, sizeof(size), report->model_bytes));
	fprintf(f, "device   %s%s\n", names->device,
		names->reference ? ": reference device (host CPU)" : "");
	fprintf(f, "machine  %s (%s)\n\n", names->machine, names->backend);
}

int report_print_table(FILE *f, const struct bench_report *report, const struct report_names *names)
{
	struct libscols_table *table;
	int ret;

	if (report->host.busy) {
		print_head(f, report, names);
		print_busy(f, &report->host);
		return fflush(f) ? -errno : 0;
	}
	scols_init_debug(0);
	table = scols_new_table();
	if (!table)
		return -ENOMEM;
	scols_table_set_stream(table, f);
	ret = fill_table(table, report);
	if (!ret) {
		print_head(f, report, names);
		ret = scols_print_table(table);
	}
	scols_unref_table(table);
	if (ret)
		return -ENOMEM;
	fputc('\n', f);
	print_verdict(f, report);
	return fflush(f) ? -errno : 0;
}

/* ---- JSON ---- */

static json_t *numbers(const double *values, int n)
{
	json_t *list = json_array();

	for (int i = 0; i < n; i++)
		json_array_append_new(list, json_real(values[i]));
	return list;
}

static json_t *ratio_json(struct stats r)
{
	return json_pack("{s:f, s:f, s:f}", "median", r.median, "min", r.min, "max", r.max);
}

static json_t *tests_json(const struct bench_report *report)
{
	json_t *list = json_array();

	for (int i = 0; i < report->n_tests; i++) {
		const struct bench_test *t = &report->tests[i];

		json_array_append_new(list,
				      json_pack("{s:s, s:o, s:o, s:o}", "name", t->name, "native",
						numbers(t->native, report->n_rounds), "inside",
						numbers(t->inside, report->n_rounds), "ratio",
						ratio_json(test_ratio(report, i))));
	}
	return list;
}

static json_t *host_json(const struct bench_host *host)
{
	return json_pack("{s:b, s:f, s:i, s:i, s:{s:f, s:f}}", "busy", host->busy, "elsewhere",
			 host->elsewhere, "rounds_dropped", host->n_dropped, "rounds_disturbed",
			 host->n_kept, "memory_bytes_per_s", "min", host->min_bytes_per_s, "max",
			 host->max_bytes_per_s);
}

static json_t *load_json(const struct bench_report *report)
{
	int n = report->n_rounds;

	return json_pack("{s:f, s:f, s:o}", "native", stats_of(report->load_native, n).median,
			 "inside", stats_of(report->load_inside, n).median, "ratio",
			 ratio_json(stats_of_ratio(report->load_inside, report->load_native, n)));
}

int report_print_json(FILE *f, const struct bench_report *report, const struct report_names *names)
{
	const char *slash = strrchr(names->model, '/');
	json_auto_t *root = json_pack(
		"{s:s, s:{s:s, s:b}, s:{s:s, s:s}, s:{s:s, s:s, s:I, s:I}, s:{s:s, s:s}, s:o}",
		"pillion", PILLION_VERSION, "device", "name", names->device, "reference",
		names->reference, "machine", "name", names->machine, "backend", names->backend,
		"model", "file", slash ? slash + 1 : names->model, "type", report->model_type,
		"bytes", (json_int_t)report->model_bytes, "params",
		(json_int_t)report->model_params, "builds", "native", report->build_native,
		"inside", report->build_inside, "host", host_json(&report->host));

	if (!root)
		return -EINVAL; /* a name that is not UTF-8 */
	if (!report->host.busy && (json_object_set_new(root, "tests", tests_json(report)) ||
				   json_object_set_new(root, "load_s", load_json(report))))
		return -ENOMEM;
	if (json_dumpf(root, f, JSON_INDENT(2) | JSON_REAL_PRECISION(6)))
		return -EIO;
	fputc('\n', f);
	return fflush(f) ? -errno : 0;
}

/* ---- plot ---- */

static void write_script(FILE *f, const char *path, const struct bench_report *report,
			 const struct report_names *names)
{
	fprintf(f, "set terminal pngcairo size 900,500\nset output '");
	for (const char *c = path; *c; c++)
		fputs(*c == '\'' ? "''" : (char[]){*c, '\0'}, f);
	fprintf(f, "'\nset title \"%s on %s%s: inside / native\" noenhanced\n", report->model_type,
		names->device, names->reference ? " (reference device: host CPU)" : "");
	fprintf(f,
		"set xlabel 'round'\nset ylabel 'ratio'\nset key outside right\nset grid ytics\n");
	fprintf(f, "set xtics 1\nset xrange [0.5:%d.5]\n", report->n_rounds);
	fprintf(f, "plot 1 lc rgb 'gray' title 'native', %g dt 2 lc rgb 'red' title '%g'",
		BENCH_VERDICT, BENCH_VERDICT);
	for (int i = 0; i < report->n_tests; i++)
		fprintf(f, ", '-' with linespoints pt 7 title '%s'", report->tests[i].name);
	fputc('\n', f);
	for (int i = 0; i < report->n_tests; i++) {
		for (int r = 0; r < report->n_rounds; r++)
			fprintf(f, "%d %.6f\n", r + 1,
				report->tests[i].inside[r] / report->tests[i].native[r]);
		fputs("e\n", f);
	}
}

int report_plot(const char *path, const struct bench_report *report,
		const struct report_names *names, struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	_auto_fd int fd = memfd_create("gnuplot", MFD_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(dup(fd), "w");
	int status;
	pid_t pid;

	if (!f)
		return pil_err_set(err, errno, "plot '%s'", path);
	write_script(f, path, report, names);
	if (fclose(f) || lseek(fd, 0, SEEK_SET))
		return pil_err_set(err, errno, "plot '%s'", path);
	argv_add(&a, "gnuplot");
	pid = proc_spawn(a.v, &(struct proc_opts){.stdin_fd = fd, .stdout_fd = -1, .stderr_fd = -1},
			 err);
	if (pid < 0) {
		pil_err_hint(err, "apt-get install gnuplot-nox");
		return (int)pid;
	}
	status = proc_wait(pid, PLOT_TIMEOUT_MS);
	if (status == -ETIMEDOUT)
		status = proc_stop(pid, 1000);
	if (status)
		return pil_err_say(err, EIO, "plot '%s': gnuplot exits with status %d", path,
				   status);
	return 0;
}
