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
#include "base/str.h"
#include "base/unixsock.h"

enum {
	START_MS = 240000, /* of a machine, whoever starts it: the slowest ready_ms and some */
	MAX_STARTS = 10,   /* of one that is stopped again before we have connected */
	STOP_MS = 30000,   /* a microVM has a disk to write */
	LOG_TAIL = 1 << 20,
	LAST_WORDS_MS = 1500, /* of a supervisor whose machine has ended */
};

extern const struct machine_ops machine_kvm, machine_ns;

const struct machine_ops *const machine_backends[] = {&machine_kvm, &machine_ns, NULL};

const struct machine_ops *machine_backend(const struct state_dirs *dirs, unsigned wanted,
					  struct pil_err *err)
{
	char why[256] = "";

	if (wanted == 3) /* as some call the microVM */
		wanted = 2;
	for (const struct machine_ops *const *ops = machine_backends; *ops; ops++) {
		if (wanted && (*ops)->version != wanted)
			continue;
		if ((*ops)->usable(dirs, why, sizeof(why)))
			return *ops;
		pil_err_say(err, ENOTSUP, "no %s on this host: %s", (*ops)->title, why);
		if (wanted == 2)
			pil_err_hint(err, "version 1, the sandbox, works without KVM: "
					  "pillion --set-version NAME 1");
	}
	return NULL;
}

void machine_spec_finish(struct machine_spec *spec)
{
	for (int i = 0; i < spec->n_shares; i++) {
		free(spec->shares[i].host);
		free(spec->shares[i].guest);
	}
	free(spec->name);
	free(spec->dir);
	free(spec->default_user);
	*spec = (struct machine_spec){0};
}

static int try_connect(const struct state_dirs *dirs, const char *name)
{
	_auto_free char *path = str_printf("%s/machines/%s/agent.sock", dirs->runtime, name);

	return unixsock_connect(path);
}

/* Starts a supervisor and waits until its machine runs.  -EWOULDBLOCK: another one is at it. */
static int start_supervisor(const char *name, int64_t due_ms, struct pil_err *err)
{
	_auto_free char *program = state_find_program("machine", "pillion-machine", err);
	char *argv[] = {program, (char *)name, NULL};
	struct proc_opts opts = {.stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	int pipe_fds[2], status;
	char text[1024] = "", *newline;
	pid_t pid;
	ssize_t n;

	if (!program)
		return -ENOENT;
	if (pipe2(pipe_fds, O_CLOEXEC))
		return pil_err_set(err, errno, "start machine");
	read_fd = pipe_fds[0];
	write_fd = opts.stdout_fd = pipe_fds[1]; /* it says there what went wrong */
	pid = proc_spawn(argv, &opts, err);
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
	pil_set_nonblock(read_fd, true);
	n = read(read_fd, text, sizeof(text) - 1);
	if (n > 0)
		text[n] = '\0';
	newline = strchr(text, '\n'); /* message, newline, hint */
	if (newline) {
		*newline++ = '\0';
		newline[strcspn(newline, "\n")] = '\0';
		if (newline[0])
			pil_err_hint(err, "%s", newline);
	}
	return pil_err_say(err, EIO, "%s", text[0] ? text : "its supervisor ended without a word");
}

int machine_connect(const struct state_dirs *dirs, const char *name, struct pil_err *err)
{
	int64_t due_ms = clock_now_ms() + START_MS;
	int fd = try_connect(dirs, name), ret;

	/* The one before may still be ending, or another command be starting this one. */
	for (int starts = 0; fd < 0 && starts < MAX_STARTS && loop_left_ms(due_ms);) {
		ret = start_supervisor(name, due_ms, err);
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

/* What pillion-vmm logged last of a failure, if anything.  Once the machine runs, only its end
 * counts, not what a device may have failed at before.  Cuts @log up.  The guest's console is in
 * the same log, but cannot begin a line so (said.h).  Its last words are the guest's: they are to
 * be escaped. */
static const char *failure_in(char *log, bool ran)
{
	static const char err[] = "microVM: pillion-vmm: err: ", end[] = "the machine ",
			  guest[] = "guest: ";
	const char *failure = NULL;
	char *rest;

	for (char *line = strtok_r(log, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (strncmp(line, err, strlen(err)))
			continue;
		line += strlen(err);
		if (ran ? !strncmp(line, end, strlen(end))
			: strncmp(line, guest, strlen(guest)) != 0)
			failure = line;
	}
	return failure;
}

/* The end of file @path; heap, NULL: there is none.  A guest may fill megabytes of the log. */
static char *read_tail(const char *path)
{
	_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	char *text = size < 0 ? NULL : malloc(LOG_TAIL + 1);
	ssize_t n = text ? pread(fd, text, LOG_TAIL, size > LOG_TAIL ? size - LOG_TAIL : 0) : 0;

	if (text)
		text[n > 0 ? n : 0] = '\0';
	return text;
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

void machine_explain_end(const struct state_dirs *dirs, const char *name, bool ran,
			 struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/machines/%s.log", dirs->runtime, name);
	_auto_free char *log = NULL;
	const char *failure;

	if (ran && machine_running(dirs, name)) /* it still writes what it has been told */
		wait_gone(dirs, name, machine_supervisor(dirs, name), LAST_WORDS_MS);
	log = read_tail(path);
	failure = log ? failure_in(log, ran) : NULL;
	pil_err_hint(err, "see %s", path);
	if (failure) {
		_auto_free char *what = str_printf("%s: %s", err->msg, failure);
		char safe[sizeof(err->msg)];

		pil_err_say(err, err->code, "%s",
			    str_escape(safe, sizeof(safe), ran ? failure : what));
	}
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
