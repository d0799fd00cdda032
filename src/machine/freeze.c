/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a machine's processes are those below its supervisor that are in another
 * pid namespace (a sandbox), or the monitor (a microVM, whose disk is written by nobody else).
 * They get SIGSTOP, in rounds, until a round finds none that is not stopped: who was forked
 * meanwhile is found by the next one.
 *
 * The thawer is a child that waits on a pipe, and sends SIGCONT at its end.  The pipe ends with
 * freeze_end(), or with us, however that comes.  Who was stopped before stays so. */
#include "machine/freeze.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"
#include "machine/machine.h"

enum { MAX_ROUNDS = 50, MAX_PROCESSES = 1 << 16, ROUND_US = 5000 };

struct process {
	pid_t pid, parent;
	char state;
	char name[16];
	bool ours; /* below the supervisor */
};

struct pids {
	pid_t *v;
	size_t n;
};

static bool add_pid(struct pids *p, pid_t pid)
{
	pid_t *more = reallocarray(p->v, p->n + 1, sizeof(*more));

	if (!more)
		return false;
	p->v = more;
	p->v[p->n++] = pid;
	return true;
}

static bool has_pid(const struct pids *p, pid_t pid)
{
	for (size_t i = 0; i < p->n; i++)
		if (p->v[i] == pid)
			return true;
	return false;
}

/* "PID (NAME) STATE PARENT ..." */
static bool read_process(pid_t pid, struct process *out)
{
	_auto_free char *path = str_printf("/proc/%d/stat", pid);
	_auto_free char *text = NULL;
	char *open, *close;

	if (pil_read_file(path, 4096, &text) <= 0)
		return false;
	open = strchr(text, '(');
	close = strrchr(text, ')');
	if (!open || !close || close < open)
		return false;
	*out = (struct process){.pid = pid};
	snprintf(out->name, sizeof(out->name), "%.*s", (int)(close - open - 1), open + 1);
	return sscanf(close + 1, " %c %d", &out->state, &out->parent) == 2;
}

/* All processes there are; heap. */
static struct process *read_all(size_t *n)
{
	struct process *all = calloc(MAX_PROCESSES, sizeof(*all));
	DIR *dir = opendir("/proc");
	struct dirent *e;

	*n = 0;
	while (all && dir && *n < MAX_PROCESSES && (e = readdir(dir))) {
		int pid = atoi(e->d_name);

		if (pid > 0 && read_process(pid, &all[*n]))
			(*n)++;
	}
	if (dir)
		closedir(dir);
	return all;
}

/* Marks what is below @root; parents may stand behind their children. */
static void mark(struct process *all, size_t n, pid_t root)
{
	bool more = true;

	while (more) {
		more = false;
		for (size_t i = 0; i < n; i++) {
			bool below = all[i].parent == root;

			for (size_t k = 0; !below && !all[i].ours && k < n; k++)
				below = all[k].ours && all[k].pid == all[i].parent;
			if (below && !all[i].ours)
				all[i].ours = more = true;
		}
	}
}

static bool in_namespace_of(pid_t pid, const struct stat *ns)
{
	_auto_free char *path = str_printf("/proc/%d/ns/pid", pid);
	struct stat its;

	return stat(path, &its) || (its.st_dev == ns->st_dev && its.st_ino == ns->st_ino);
}

/* One round: how many had to be stopped, or -errno. */
static int stop_round(pid_t supervisor, struct pids *stopped, struct pids *before)
{
	struct stat ns = {0};
	size_t n;
	_auto_free struct process *all = read_all(&n);
	int count = 0;

	if (!all || stat("/proc/self/ns/pid", &ns))
		return -ENOMEM;
	mark(all, n, supervisor);
	for (size_t i = 0; i < n; i++) {
		const struct process *p = &all[i];

		if (!p->ours || has_pid(before, p->pid) || p->state == 'Z' ||
		    (in_namespace_of(p->pid, &ns) && strcmp(p->name, "pillion-vmm") != 0))
			continue;
		if (p->state == 'T' || p->state == 't') {
			if (!has_pid(stopped, p->pid) && !add_pid(before, p->pid))
				return -ENOMEM;
			continue;
		}
		count++;
		if (kill(p->pid, SIGSTOP) == 0 && !has_pid(stopped, p->pid) &&
		    !add_pid(stopped, p->pid))
			return -ENOMEM;
	}
	return count;
}

/* The thawer: waits, lets all go on. */
static PIL_NORETURN void thaw_at_end(int fd, const struct pids *stopped)
{
	char c;

	setsid(); /* no key of a terminal ends it */
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	while (read(fd, &c, 1) < 0 && errno == EINTR)
		continue;
	for (size_t i = stopped->n; i-- > 0;)
		kill(stopped->v[i], SIGCONT);
	_exit(0);
}

static int stop_all(pid_t supervisor, struct pids *stopped)
{
	struct pids before = {0};
	int ret = 1;

	for (int i = 0; ret > 0 && i < MAX_ROUNDS; i++) {
		ret = stop_round(supervisor, stopped, &before);
		if (ret > 0)
			usleep(ROUND_US);
	}
	free(before.v);
	return ret > 0 ? -EBUSY : ret;
}

int freeze_begin(struct freeze *f, const struct state_dirs *dirs, const char *name,
		 struct pil_err *err)
{
	pid_t supervisor = machine_supervisor(dirs, name);
	struct pids stopped = {0};
	int fds[2], ret;

	*f = (struct freeze){.fd = -1};
	if (supervisor <= 0)
		return 0;
	ret = stop_all(supervisor, &stopped);
	if (pipe2(fds, O_CLOEXEC)) {
		ret = -errno;
		fds[0] = fds[1] = -1;
	}
	f->thawer = ret ? 0 : fork();
	if (f->thawer == 0 && !ret) {
		close(fds[1]);
		thaw_at_end(fds[0], &stopped);
	}
	if (f->thawer < 0)
		ret = -errno;
	if (ret)
		for (size_t i = 0; i < stopped.n; i++)
			kill(stopped.v[i], SIGCONT);
	close(fds[0]);
	free(stopped.v);
	if (!ret) {
		f->fd = fds[1];
		return 0;
	}
	close(fds[1]);
	*f = (struct freeze){.fd = -1};
	pil_err_hint(err, "pillion --terminate %s, then the same command", name);
	return pil_err_set(err, -ret, "let '%s' stand still", name);
}

void freeze_end(struct freeze *f)
{
	if (f->thawer <= 0)
		return;
	pil_close_p(&f->fd);
	proc_wait(f->thawer, 5000);
	*f = (struct freeze){.fd = -1};
}
