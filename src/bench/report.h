/* SPDX-License-Identifier: Apache-2.0
 *
 * report.h -- a bench report as a table for people, as JSON, or drawn. */
#ifndef PIL_REPORT_H
#define PIL_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/compiler.h"
#include "base/err.h"
#include "bench/bench.h"

struct report_names {
	const char *device;  /* ggml's name of it outside */
	bool reference;      /* it is the host's CPU */
	const char *machine; /* distro name */
	const char *backend; /* "ns", "kvm" */
	const char *model;   /* path */
};

/* Is the median ratio of every test at least BENCH_VERDICT? */
bool report_passed(const struct bench_report *report);

int report_print_table(FILE *f, const struct bench_report *report,
		       const struct report_names *names) PIL_MUST_CHECK;
int report_print_json(FILE *f, const struct bench_report *report,
		      const struct report_names *names) PIL_MUST_CHECK;

/* Writes a PNG with gnuplot: the ratio of every round of every test. */
int report_plot(const char *path, const struct bench_report *report,
		const struct report_names *names, struct pil_err *err) PIL_MUST_CHECK;

#endif
