/* SPDX-License-Identifier: Apache-2.0
 *
 * The parent waits on a pipe.  The child goes on as the daemon, in a session of its own, and
 * writes an exit status into the pipe once it serves or has failed; the parent exits with that
 * status.  So who starts a daemon knows that it serves. */
#include "base/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"

int daemon_detach(struct pil_err *err)
{
	int pipe_fds[2], status = 0;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return pil_err_set(err, errno, "detach");
	pid = fork();
	if (pid < 0)
		return pil_err_set(err, errno, "detach");
	if (pid > 0) {
		close(pipe_fds[1]);
		_exit(pil_read_all(pipe_fds[0], &status, sizeof(status)) ? EXIT_FAILURE : status);
	}
	close(pipe_fds[0]);
	setsid();
	proc_leave_keyring();
	return pipe_fds[1];
}

void daemon_report(int *ready_fd, int status)
{
	if (*ready_fd >= 0 && pil_write_all(*ready_fd, &status, sizeof(status)))
		log_dbg("nobody waits for us");
	pil_close_p(ready_fd);
}
