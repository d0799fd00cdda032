/* SPDX-License-Identifier: Apache-2.0
 *
 * busy.c -- see busy.h.
 *
 * Theory of operation.  /proc/stat has the CPU time of everything, that of processes which came
 * and went included.  What is ours is subtracted: getrusage() has our ended children; of processes
 * that go on (the broker with its executors, a machine with all that runs in it) /proc/PID/stat has
 * the time of each and of the children it waited for.  The rest went elsewhere, and so did what the
 * hypervisor calls stolen.
 *
 * The tree of a machine counts as ours only while something is measured inside.  So a second
 * program in it, or another machine on the same device, shows up while native is measured. */
#include "bench/busy.h"

#include <ctype.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/str.h"

#define LIMIT_SHARE 0.03
#define LIMIT_S     0.05 /* five ticks of the kernel's clock */

enum { PROBE_BYTES = 64 << 20, PROBE_PASSES = 2, MAX_PROCESSES = 1 << 16 };

/* ---- memory ---- */

struct busy_probe {
	size_t n_words;
	uint64_t sink; /* keeps the compiler from leaving the reading out */
	uint64_t words[];
};

struct busy_probe *busy_probe_create(void)
{
	struct busy_probe *probe = malloc(sizeof(*probe) + PROBE_BYTES);

	if (!probe)
		return NULL;
	probe->n_words = PROBE_BYTES / sizeof(probe->words[0]);
	probe->sink = 0;
	memset(probe->words, 1, PROBE_BYTES);
	return probe;
}

void busy_probe_destroy(struct busy_probe *probe)
{
	free(probe);
}

static double thread_cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Our own CPU time, not the wall's: whoever takes the processor does not count here. */
static double probe_once(struct busy_probe *probe)
{
	double start = thread_cpu_s();
	uint64_t sum = 0;

	for (size_t i = 0; i < probe->n_words; i++)
		sum += probe->words[i];
	probe->sink += sum;
	return PROBE_BYTES / (thread_cpu_s() - start);
}

static double probe_bandwidth(struct busy_probe *probe)
{
	double best = 0;

	for (int i = 0; probe && i < PROBE_PASSES; i++) {
		double got = probe_once(probe);

		best = got > best ? got : best;
	}
	return best;
}

/* ---- processors ---- */

bool busy_parse_stat(const char *text, double ticks_per_s, double *used_s, double *steal_s)
{
	/* guest time, the ninth and tenth, is part of user time */
	unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;

	if (sscanf(text, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system,
		   &idle, &iowait, &irq, &softirq, &steal) != 8)
		return false;
	*used_s = (double)(user + nice + system + irq + softirq) / ticks_per_s;
	*steal_s = (double)steal / ticks_per_s;
	return true;
}

struct process {
	pid_t pid, parent;
	unsigned long long ticks; /* its own and of the children it waited for */
	bool ours;
};

/* The name of a program may hold blanks and brackets. */
static bool read_process(const char *pid, struct process *p)
{
	_auto_free char *path = str_printf("/proc/%s/stat", pid);
	_auto_free char *text = NULL;
	unsigned long long t[4];
	const char *rest;
	int parent;

	if (pil_read_file(path, 4096, &text) < 0 || !(rest = strrchr(text, ')')))
		return false;
	if (sscanf(rest, ") %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu",
		   &parent, &t[0], &t[1], &t[2], &t[3]) != 5)
		return false;
	*p = (struct process){(pid_t)strtol(pid, NULL, 10), parent, t[0] + t[1] + t[2] + t[3],
			      false};
	return true;
}

static int read_processes(struct process **out)
{
	struct process *list = calloc(MAX_PROCESSES, sizeof(*list));
	DIR *dir = opendir("/proc");
	struct dirent *e;
	int n = 0;

	while (list && dir && n < MAX_PROCESSES && (e = readdir(dir)))
		if (isdigit((unsigned char)e->d_name[0]) && read_process(e->d_name, &list[n]))
			n++;
	if (dir)
		closedir(dir);
	*out = list;
	return n;
}

static bool is_root(pid_t pid, const char *const *pid_files)
{
	for (; *pid_files; pid_files++) {
		_auto_free char *text = NULL;

		if (pil_read_file(*pid_files, 32, &text) > 0 && strtol(text, NULL, 10) == pid)
			return true;
	}
	return false;
}

static bool is_ours(const struct process *list, int n, const struct process *p)
{
	for (int i = 0; i < n; i++)
		if (list[i].ours && list[i].pid == p->parent)
			return true;
	return false;
}

/* The trees of running processes below the roots. */
static double trees_s(const char *const *pid_files, double ticks_per_s)
{
	struct process *list = NULL;
	unsigned long long ticks = 0;
	bool more = true;
	int n = pid_files ? read_processes(&list) : 0;

	for (int i = 0; i < n; i++)
		list[i].ours = is_root(list[i].pid, pid_files);
	while (more) {
		more = false;
		for (int i = 0; i < n; i++)
			if (!list[i].ours && is_ours(list, n, &list[i]))
				more = list[i].ours = true;
	}
	for (int i = 0; i < n; i++)
		ticks += list[i].ours ? list[i].ticks : 0;
	free(list);
	return (double)ticks / ticks_per_s;
}

static double usage_s(int who)
{
	struct rusage u;

	if (getrusage(who, &u))
		return 0;
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

void busy_mark_take(struct busy_mark *mark, struct busy_probe *probe, const char *const *pid_files)
{
	double ticks_per_s = (double)sysconf(_SC_CLK_TCK);
	_auto_free char *text = NULL;

	*mark = (struct busy_mark){.bytes_per_s = probe_bandwidth(probe)};
	mark->ours_s = trees_s(pid_files, ticks_per_s);
	mark->ours_s += usage_s(RUSAGE_SELF) + usage_s(RUSAGE_CHILDREN);
	if (pil_read_file("/proc/stat", 1 << 20, &text) > 0)
		busy_parse_stat(text, ticks_per_s, &mark->used_s, &mark->steal_s);
	mark->wall_s = (double)clock_now_ns() / 1e9;
}

/* ---- between two marks ---- */

static double positive(double x)
{
	return x > 0 ? x : 0;
}

double busy_elsewhere_s(const struct busy_mark *from, const struct busy_mark *to)
{
	return positive(to->used_s - from->used_s - positive(to->ours_s - from->ours_s)) +
	       positive(to->steal_s - from->steal_s);
}

double busy_available_s(const struct busy_mark *from, const struct busy_mark *to)
{
	return (to->wall_s - from->wall_s) * (double)sysconf(_SC_NPROCESSORS_ONLN);
}

bool busy_disturbed(const struct busy_mark *from, const struct busy_mark *to)
{
	return busy_elsewhere_s(from, to) > LIMIT_SHARE * busy_available_s(from, to) + LIMIT_S;
}
