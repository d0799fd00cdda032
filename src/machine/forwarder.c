/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the guest's announcements, of which each is the whole list, go through us,
 * so that the last one is there for a pillion-forward that takes the place of another, and so that
 * one which was killed in the middle of a list leaves nothing half read.  A list is shorter than
 * what a pipe takes at once; one that finds the pipe full, because its reader is stuck, is dropped,
 * and we do not wait. */
#include "machine/forwarder.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"

static_assert(sizeof(((struct port_list *)0)->words) <= PIPE_BUF, "a list is written at once");

static void pass_on(struct forwarder *f)
{
	size_t bytes = sizeof(f->last.words[0]) * (1u + f->last.words[0]);

	if (f->ports_fd >= 0 && write(f->ports_fd, f->last.words, bytes) != (ssize_t)bytes)
		log_dbg("pillion-forward: %s", strerror(errno));
}

static void start(struct forwarder *f)
{
	_auto_fd int read_fd = -1;
	struct pil_err err = {0};
	int fds[2];

	if (pipe2(fds, O_CLOEXEC)) {
		log_warn("forward ports: %s", strerror(errno));
		return;
	}
	read_fd = fds[0];
	pil_close_p(&f->ports_fd);
	f->ports_fd = fds[1];
	pil_set_nonblock(f->ports_fd, true);
	f->pid = forward_host_start(read_fd, f->path, f->say_fd, &err);
	if (f->pid < 0) {
		log_warn("%s", err.msg);
		f->pid = 0;
		return;
	}
	pass_on(f);
}

void forwarder_init(struct forwarder *f, int announce_fd, const char *path, int say_fd)
{
	*f = (struct forwarder){.announce_fd = announce_fd,
				.ports_fd = -1,
				.path = strdup(path),
				.say_fd = say_fd};
	start(f);
}

void forwarder_finish(struct forwarder *f)
{
	if (!f->path)
		return;
	if (f->pid > 0)
		proc_stop(f->pid, 0);
	pil_close_p(&f->announce_fd);
	pil_close_p(&f->ports_fd);
	free(f->path);
	*f = (struct forwarder){0};
}

void forwarder_read(struct forwarder *f)
{
	switch (port_list_read(&f->coming, f->announce_fd)) {
	case PORT_LIST_PART:
		break;
	case PORT_LIST_WHOLE:
		f->last = f->coming;
		pass_on(f);
		break;
	case PORT_LIST_END:
		pil_close_p(&f->announce_fd);
		pil_close_p(&f->ports_fd); /* ends it */
	}
}

void forwarder_tend(struct forwarder *f)
{
	if (!f->path || f->announce_fd < 0)
		return;
	if (f->pid > 0 && proc_wait(f->pid, 0) == -ETIMEDOUT)
		return;
	f->pid = 0;
	if (!respawn_due(&f->again, clock_now_ms()))
		return;
	log_warn("pillion-forward ended; starting another");
	start(f);
}
