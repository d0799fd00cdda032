/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: an executor is started at the first session on its device and stays.  It
 * holds one end of a SOCK_SEQPACKET pair; sending to an executor that died fails with EPIPE or
 * ECONNRESET, whereupon it is started anew and the message sent again, once.  One that keeps dying
 * at once is not started more than once a second. */
#include "executors.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "loop.h"
#include "str.h"

/* Reads until the end of file or @max bytes, at most until @due_ms. */
static ssize_t read_until(int fd, void *buf, size_t max, int64_t due_ms)
{
	size_t len = 0;

	while (len < max) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = due_ms - loop_now_ms();
		ssize_t n;

		if (left <= 0 || poll(&p, 1, (int)left) <= 0)
			return -ETIMEDOUT;
		n = read(fd, (char *)buf + len, max - len);
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	return (ssize_t)len;
}

static int probe(const struct jail *jail, struct wire_device *out, struct pil_err *err)
{
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	struct proc_opts opts = {.stdin_fd = -1, .stderr_fd = -1, .new_session = true};
	int pipe_fds[2], status;
	ssize_t n;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return pil_err_set(err, errno, "list devices");
	read_fd = pipe_fds[0];
	write_fd = opts.stdout_fd = pipe_fds[1];
	pid = jail_spawn(jail, (const char *const[]){"--probe", NULL}, &opts, err);
	if (pid < 0)
		return (int)pid;
	pil_close_p(&write_fd);
	n = read_until(read_fd, out, sizeof(*out) * WIRE_MAX_DEVICES, loop_now_ms() + 30000);
	status = proc_stop(pid, n < 0 ? 0 : 5000);
	if (n < 0)
		return pil_err_set(err, (int)-n, "list devices");
	if (status && status != 128 + SIGTERM)
		return pil_err_say(err, EIO,
				   "list devices: pillion-exec ended with status %d in its jail",
				   status);
	return (int)((size_t)n / sizeof(*out));
}

static bool listed(const struct wire_device *d, bool reference_wanted)
{
	return reference_wanted || !(d->flags & WIRE_DEVICE_REFERENCE);
}

int executors_init(struct executors *x, const struct jail *jail, struct pil_err *err)
{
	struct wire_device found[WIRE_MAX_DEVICES] = {0};
	bool other = false;
	int n;

	*x = (struct executors){.jail = jail};
	n = probe(jail, found, err);
	if (n < 0)
		return n;
	for (int i = 0; i < n; i++)
		other = other || !(found[i].flags & WIRE_DEVICE_REFERENCE);
	for (int i = 0; i < n; i++) {
		struct wire_device *d = &x->devices[x->n];

		if (!listed(&found[i], jail->config->reference_always || !other))
			continue;
		*d = found[i];
		d->name[sizeof(d->name) - 1] = '\0';
		d->description[sizeof(d->description) - 1] = '\0';
		x->executor[x->n] = (struct executor){.ggml_index = d->index, .control_fd = -1};
		d->index = (uint32_t)x->n++;
	}
	return 0;
}

void executors_finish(struct executors *x)
{
	for (int i = 0; i < x->n; i++)
		pil_close_p(&x->executor[i].control_fd);
}

void executors_reap(struct executors *x)
{
	for (int i = 0; i < x->n; i++) {
		struct executor *e = &x->executor[i];
		int status;

		if (e->pid <= 0 || waitpid(e->pid, &status, WNOHANG) != e->pid)
			continue;
		log_warn("executor of device %s ended (%s %d)", x->devices[i].name,
			 WIFSIGNALED(status) ? "signal" : "status",
			 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		e->failures = loop_now_ms() - e->started_ms < 1000 ? e->failures + 1 : 0;
		e->pid = 0;
		pil_close_p(&e->control_fd);
	}
}

static int start(struct executors *x, struct executor *e)
{
	_auto_free char *index = str_printf("%u", e->ggml_index);
	_auto_free char *fd_text = NULL;
	_auto_fd int ours = -1;
	_auto_fd int theirs = -1;
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = -1,
				 .stderr_fd = -1,
				 .new_session = true,
				 .n_keep_fds = 1};
	struct pil_err err = {0};
	int pair[2];

	if (e->failures && loop_now_ms() - e->started_ms < 1000)
		return -EAGAIN;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	ours = pair[0];
	theirs = pair[1];
	opts.keep_fds = &theirs;
	fd_text = str_printf("%d", theirs);
	e->started_ms = loop_now_ms();
	e->pid = jail_spawn(x->jail,
			    (const char *const[]){"--device", index, "--control-fd", fd_text, NULL},
			    &opts, &err);
	if (e->pid < 0) {
		log_err("%s", err.msg);
		e->pid = 0;
		e->failures++;
		return -EIO;
	}
	e->control_fd = pil_take_fd(&ours);
	return 0;
}

enum wire_status executors_open(struct executors *x, uint32_t index,
				const struct control_open *open, int stream_fd)
{
	struct executor *e;

	if (index >= (uint32_t)x->n)
		return WIRE_E_NO_DEVICE;
	e = &x->executor[index];
	executors_reap(x);
	for (int try = 0; try < 2; try++) {
		if (e->control_fd < 0 && start(x, e))
			return WIRE_E_EXECUTOR;
		if (pil_send_fds(e->control_fd, open, sizeof(*open), &stream_fd, 1) == 0)
			return WIRE_OK;
		pil_close_p(&e->control_fd); /* it died: the next round starts another */
		if (e->pid > 0)
			proc_stop(e->pid, 1000);
		e->pid = 0;
	}
	return WIRE_E_EXECUTOR;
}
