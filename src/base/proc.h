/* SPDX-License-Identifier: Apache-2.0
 *
 * proc.h -- starting other programs and waiting for them, always with a bound. */
#ifndef PIL_PROC_H
#define PIL_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/err.h"

/* An argument vector that grows; argv_finish() frees it.  Adding aborts only without memory. */
struct argv {
	char **v; /* NULL-terminated */
	size_t n;
};

void argv_add(struct argv *a, const char *arg);
void argv_addf(struct argv *a, const char *fmt, ...) PIL_PRINTF(2, 3);
void argv_add_all(struct argv *a, const char *const *args); /* NULL-terminated */
void argv_finish(struct argv *a);
#define _auto_argv __attribute__((cleanup(argv_finish)))

struct proc_opts {
	int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null for stdin, inherited for the others */
	const int *keep_fds; /* further descriptors the child inherits, same numbers */
	int n_keep_fds;
	bool new_session;  /* setsid(): not in the caller's terminal */
	bool die_with_us;  /* SIGKILL when the thread that started it ends */
	char *const *envp; /* NULL: ours */
	/* Limits of what it may allocate, 0: none.  The second counts no memory shared with others.
	 */
	uint64_t max_address_bytes, max_data_bytes;
};

/* fork + execvp of @argv[0]; everything not kept is closed in the child, signal mask and handlers
 * are reset.  Returns the pid, or -errno with @err naming the program (a failed exec included). */
pid_t proc_spawn(char *const *argv, const struct proc_opts *opts,
		 struct pil_err *err) PIL_MUST_CHECK;

/* What proc_spawn() does in the child: places descriptors, resets signals, executes.  The parent
 * alone reads what is written to @report_fd, a close-on-exec pipe, and does so until then.  Returns
 * only on failure, -errno. */
int proc_exec(char *const *argv, const struct proc_opts *opts, int report_fd);

/* Waits at most @timeout_ms (-1: no bound).  Returns the exit status, 128+N for signal N, or
 * -ETIMEDOUT with the child still running. */
int proc_wait(pid_t pid, int timeout_ms);

/* SIGTERM if there are @grace_ms to end in; then SIGKILL, to what is left of its process group if
 * it leads one; reaps it.  Returns as proc_wait(). */
int proc_stop(pid_t pid, int grace_ms);

/* Leaves the keyring of the caller's session behind: neither we nor what we start see its keys. */
void proc_leave_keyring(void);

/* Is there @program in $PATH? */
bool proc_have(const char *program);

#endif
