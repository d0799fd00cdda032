/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the child reports a failed exec through a close-on-exec pipe, so that "not
 * found" is the caller's error and not an exit status.  The parent reads it until then: a child
 * that is to die with it, and finds no reader once it has said so to the kernel, was too late.
 *
 * Waiting uses a pidfd, hence no SIGCHLD handler and no race with other children. */
#include "base/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"

enum { LOOK_MS = 20 };

void argv_add(struct argv *a, const char *arg)
{
	char **v = reallocarray(a->v, a->n + 2, sizeof(*v));

	if (!v || !(v[a->n] = strdup(arg)))
		abort();
	v[++a->n] = NULL;
	a->v = v;
}

void argv_addf(struct argv *a, const char *fmt, ...)
{
	_auto_free char *arg = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&arg, fmt, ap) < 0)
		abort();
	va_end(ap);
	argv_add(a, arg);
}

void argv_add_all(struct argv *a, const char *const *args)
{
	while (*args)
		argv_add(a, *args++);
}

void argv_finish(struct argv *a)
{
	for (size_t i = 0; i < a->n; i++)
		free(a->v[i]);
	free(a->v);
	*a = (struct argv){0};
}

static int place_fd(int fd, int target)
{
	if (fd < 0 && target == STDIN_FILENO)
		fd = open("/dev/null", O_RDONLY);
	if (fd < 0)
		return 0;
	if (fd == target)
		return fcntl(fd, F_SETFD, 0);
	return dup2(fd, target) < 0 ? -1 : 0;
}

static bool has_reader(int pipe_fd)
{
	struct pollfd p = {.fd = pipe_fd};

	return poll(&p, 1, 0) == 0; /* else POLLERR */
}

/* As far as we may: a lower limit of ours stays. */
static int limit(int resource, uint64_t bytes)
{
	struct rlimit now;

	if (!bytes)
		return 0;
	if (getrlimit(resource, &now))
		return -1;
	if (now.rlim_max > bytes)
		now.rlim_max = bytes;
	if (now.rlim_cur > now.rlim_max)
		now.rlim_cur = now.rlim_max;
	return setrlimit(resource, &now);
}

int proc_exec(char *const *argv, const struct proc_opts *opts, int report_fd)
{
	sigset_t none;

	sigemptyset(&none);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (opts->new_session)
		setsid();
	if (place_fd(opts->stdin_fd, 0) || place_fd(opts->stdout_fd, 1) ||
	    place_fd(opts->stderr_fd, 2))
		return -errno;
	pil_cloexec_from(3);
	for (int i = 0; i < opts->n_keep_fds; i++)
		fcntl(opts->keep_fds[i], F_SETFD, 0);
	if (opts->die_with_us && (prctl(PR_SET_PDEATHSIG, SIGKILL) || !has_reader(report_fd)))
		_exit(127);
	if (limit(RLIMIT_AS, opts->max_address_bytes) || limit(RLIMIT_DATA, opts->max_data_bytes))
		return -errno;
	if (opts->envp)
		execvpe(argv[0], argv, opts->envp);
	else
		execvp(argv[0], argv);
	return -errno;
}

static PIL_NORETURN void run_child(char *const *argv, const struct proc_opts *opts, int report_fd)
{
	int err = -proc_exec(argv, opts, report_fd);

	if (write(report_fd, &err, sizeof(err)) < 0)
		_exit(126);
	_exit(127);
}

pid_t proc_spawn(char *const *argv, const struct proc_opts *opts, struct pil_err *err)
{
	_auto_fd int report_read = -1;
	_auto_fd int report_write = -1;
	int pipe_fds[2], child_errno = 0;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return pil_err_set(err, errno, "start '%s': pipe", argv[0]);
	report_read = pipe_fds[0];
	report_write = fcntl(pipe_fds[1], F_DUPFD_CLOEXEC, 64); /* out of the way of 0, 1, 2 */
	close(pipe_fds[1]);
	pid = fork();
	if (pid < 0)
		return pil_err_set(err, errno, "start '%s': fork", argv[0]);
	if (pid == 0) {
		close(report_read);
		run_child(argv, opts, report_write);
	}
	pil_close_p(&report_write);
	if (pil_read_all(report_read, &child_errno, sizeof(child_errno)) == 0) {
		waitpid(pid, NULL, 0);
		return pil_err_set(err, child_errno, "start '%s'", argv[0]);
	}
	return pid;
}

static bool has_ended(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == pid;
}

/* Waits until @pid ends, at most @timeout_ms (-1: no bound), and does not reap it. */
static int await_end(pid_t pid, int timeout_ms)
{
	_auto_fd int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int64_t due = clock_now_ms() + timeout_ms;

	while (timeout_ms >= 0 && !has_ended(pid)) {
		int left_ms = loop_left_ms(due);

		if (left_ms == 0)
			return -ETIMEDOUT;
		if (fd < 0 && left_ms > LOOK_MS) /* no descriptor was to be had */
			left_ms = LOOK_MS;
		if (poll(&p, fd >= 0, left_ms) < 0 && errno != EINTR)
			return -errno;
	}
	return 0;
}

int proc_wait(pid_t pid, int timeout_ms)
{
	int status, ret = await_end(pid, timeout_ms);

	if (ret)
		return ret;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int proc_stop(pid_t pid, int grace_ms)
{
	if (grace_ms > 0 && kill(pid, SIGTERM) == 0 && await_end(pid, grace_ms) == -ETIMEDOUT)
		log_dbg("process %d does not end: killed", pid);
	/* Even if it ended: what it was just starting may not have been told yet to end with it.
	 * Until it is reaped the number is nobody else's. */
	kill(getpgid(pid) == pid ? -pid : pid, SIGKILL);
	return proc_wait(pid, -1);
}

/* Without keyrings in the kernel (ENOSYS), or where a filter denies the call, there is none. */
void proc_leave_keyring(void)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0)
		log_dbg("leave the session's keyring: %s", strerror(errno));
}

bool proc_have(const char *program)
{
	const char *path = getenv("PATH");
	_auto_free char *copy = strdup(path ? path : "/usr/local/bin:/usr/bin:/bin");
	char *save = NULL;

	for (char *dir = copy ? strtok_r(copy, ":", &save) : NULL; dir;
	     dir = strtok_r(NULL, ":", &save)) {
		_auto_free char *full = NULL;

		if (asprintf(&full, "%s/%s", dir, program) > 0 && access(full, X_OK) == 0)
			return true;
	}
	return false;
}
