/* SPDX-License-Identifier: Apache-2.0
 *
 * How the command line starts, reaches and stops machines.
 *
 * Theory of operation: the supervisor's lock, not its socket, says whether a machine runs.  A
 * command tries to connect; where nobody listens it starts a supervisor and waits for its exit
 * status, because the supervisor detaches once the machine's agent serves.  Several commands may
 * start one machine at once: one supervisor gets the lock, the others say so, and their commands
 * connect to the first.  To stop a machine is to signal the holder of the lock and to wait until
 * the lock is free. */
#include "machine/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/loop.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/report.h"
#include "base/str.h"
#include "base/unixsock.h"
#include "machine/distro_spec.h"
#include "machine/spec.h"

enum {
	START_MS = 240000, /* of a machine, whoever starts it: the slowest ready_ms and some */
	MAX_STARTS = 10,   /* of one that is stopped again before we have connected */
	STOP_MS = 30000,   /* a microVM has a disk to write */
};

static int try_connect(const struct state_dirs *dirs, const char *name)
{
	_auto_free char *path = str_printf("%s/machines/%s/agent.sock", dirs->runtime, name);

	return unixsock_connect(path);
}

/* A descriptor that says which machine is to be started. */
static int describe(const struct state_dirs *dirs, const char *name, struct pil_err *err)
{
	struct machine_spec spec;
	int ret = distro_spec_make(&spec, dirs, name, err), fd;

	if (ret)
		return ret;
	fd = spec_open(&spec, err);
	spec_finish(&spec);
	return fd;
}

/* Starts a supervisor and waits until its machine runs.  -EWOULDBLOCK: another one is at it. */
static int start_supervisor(const struct state_dirs *dirs, const char *name, int64_t due_ms,
			    struct pil_err *err)
{
	_auto_free char *program = state_find_program("machine", "pillion-machine", err);
	_auto_fd int spec_fd = program ? describe(dirs, name, err) : -ENOENT;
	_auto_argv struct argv a = {0};
	int keep[2];
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = -1,
				 .stderr_fd = -1,
				 .keep_fds = keep,
				 .n_keep_fds = ARRAY_SIZE(keep)};
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	int status;
	pid_t pid;

	if (spec_fd < 0)
		return spec_fd;
	read_fd = report_open(&write_fd, err);
	if (read_fd < 0)
		return read_fd;
	keep[0] = spec_fd;
	keep[1] = write_fd;
	argv_add_all(&a, (const char *const[]){program, "--spec-fd", NULL});
	argv_addf(&a, "%d", spec_fd);
	argv_add(&a, "--report-fd");
	argv_addf(&a, "%d", write_fd);
	pid = proc_spawn(a.v, &opts, err);
	if (pid < 0)
		return pid;
	pil_close_p(&write_fd);
	status = proc_wait(pid, loop_left_ms(due_ms));
	if (status == 0)
		return 0;
	if (status == MACHINE_EXIT_ANOTHER)
		return -EWOULDBLOCK;
	if (status == -ETIMEDOUT) {
		pil_err_hint(err, "pillion --terminate %s", name);
		return pil_err_say(err, ETIMEDOUT, "it does not run after %d s", START_MS / 1000);
	}
	if (report_receive(read_fd, err))
		return -err->code;
	return pil_err_say(err, EIO, "its supervisor ended without a message (status %d)", status);
}

int machine_connect(const struct state_dirs *dirs, const char *name, struct pil_err *err)
{
	int64_t due_ms = clock_now_ms() + START_MS;
	int fd = try_connect(dirs, name), ret;

	/* The one before may still be ending, or another command be starting this one. */
	for (int starts = 0; fd < 0 && starts < MAX_STARTS && loop_left_ms(due_ms);) {
		ret = start_supervisor(dirs, name, due_ms, err);
		if (ret && ret != -EWOULDBLOCK)
			return pil_err_prefix(err, "start '%s'", name);
		starts += ret == 0;
		fd = try_connect(dirs, name);
	}
	if (fd >= 0)
		return fd;
	pil_err_hint(err, "pillion --terminate %s", name);
	return pil_err_say(err, ETIMEDOUT, "start '%s': its agent does not answer", name);
}

pid_t machine_supervisor(const struct state_dirs *dirs, const char *name)
{
	_auto_free char *lock = str_printf("%s/machines/%s/lock", dirs->runtime, name);
	_auto_free char *path = str_printf("%s/machines/%s/pid", dirs->runtime, name);
	_auto_free char *text = NULL;
	_auto_fd int fd = open(lock, O_RDWR | O_CLOEXEC);
	uint64_t pid;

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (pil_read_file(path, 32, &text) <= 0)
		return 0;
	text[strcspn(text, "\n")] = '\0';
	return str_to_u64(text, INT32_MAX, &pid) ? (pid_t)pid : 0;
}

bool machine_running(const struct state_dirs *dirs, const char *name)
{
	return machine_supervisor(dirs, name) > 0;
}

/* Somebody may start the machine anew meanwhile: that is another one. */
static bool wait_gone(const struct state_dirs *dirs, const char *name, pid_t pid, int timeout_ms)
{
	int64_t due = clock_now_ms() + timeout_ms;

	while (machine_supervisor(dirs, name) == pid) {
		if (clock_now_ms() > due)
			return false;
		poll(NULL, 0, 20);
	}
	return true;
}

int machine_stop(const struct state_dirs *dirs, const char *name, bool force, struct pil_err *err)
{
	pid_t pid = machine_supervisor(dirs, name);

	if (pid <= 0)
		return 0;
	if (kill(pid, force ? SIGKILL : SIGUSR1) && errno != ESRCH)
		return pil_err_set(err, errno, "stop '%s'", name);
	if (wait_gone(dirs, name, pid, STOP_MS))
		return 0;
	kill(pid, SIGKILL);
	return wait_gone(dirs, name, pid, 2000)
		       ? 0
		       : pil_err_say(err, ETIMEDOUT, "stop '%s': it does not end", name);
}
