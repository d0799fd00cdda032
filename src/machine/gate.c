/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the socket is made here and outlives the gate, so that programs which
 * connect while a gate is being replaced wait for the next one.  The gate answers a ping, a byte,
 * between any two things it does, none of which takes long; one that has not answered by the next
 * tick is killed.  A killed process leaves every wait in the kernel. */
#include "machine/gate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/queued.h"
#include "base/str.h"
#include "base/unixsock.h"
#include "broker/broker.h"

static int spawn(struct gate *gate, struct pil_err *err)
{
	_auto_free char *program = state_find_program("broker", "pillion-gate", err);
	_auto_argv struct argv a = {0};
	_auto_fd int its_fd = -1;
	int pair[2], keep[2];
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = gate->say_fd,
				 .stderr_fd = gate->say_fd,
				 .keep_fds = keep,
				 .n_keep_fds = ARRAY_SIZE(keep),
				 .die_with_us = true};

	if (!program)
		return -ENOENT;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return pil_err_set(err, errno, "start the gate");
	pil_close_p(&gate->control_fd);
	gate->control_fd = pair[0];
	keep[0] = its_fd = pair[1];
	keep[1] = gate->listen_fd;
	argv_add_all(&a, (const char *const[]){program, "--machine", gate->machine, NULL});
	argv_add(&a, "--listen-fd");
	argv_addf(&a, "%d", gate->listen_fd);
	argv_add(&a, "--control-fd");
	argv_addf(&a, "%d", its_fd);
	gate->asked = false;
	gate->pid = proc_spawn(a.v, &opts, err);
	if (gate->pid < 0)
		pil_close_p(&gate->control_fd);
	return gate->pid < 0 ? (int)gate->pid : 0;
}

/* The folder is for machines to see, where their users are other uids than ours; the one above is
 * ours alone. */
int gate_start(struct gate *gate, const struct state_dirs *dirs, const char *machine, int say_fd,
	       struct pil_err *err)
{
	_auto_free char *path = broker_gate_path(dirs, machine);
	_auto_free char *dir = str_printf("%.*s", (int)(strrchr(path, '/') - path), path);

	*gate = (struct gate){.control_fd = -1, .machine = strdup(machine), .say_fd = say_fd};
	if (path_mkdirs(dir, 0755) || chmod(dir, 0755))
		return pil_err_set(err, errno, "make folder '%s'", dir);
	gate->listen_fd = unixsock_listen_as(path, SOCK_STREAM, 0666, err);
	if (gate->listen_fd < 0)
		return gate->listen_fd;
	if (queued_fds_refuse(gate->listen_fd))
		log_dbg("the gate has to drop descriptors itself: SO_PASSRIGHTS is not known");
	return spawn(gate, err);
}

static void replace(struct gate *gate)
{
	struct pil_err err = {0};

	pil_close_p(&gate->control_fd);
	gate->pid = 0;
	if (!respawn_due(&gate->again, clock_now_ms()))
		return;
	log_warn("pillion-gate ended; starting another");
	if (spawn(gate, &err))
		log_warn("%s", err.msg);
}

void gate_tend(struct gate *gate, bool tick)
{
	char ping = 0;
	ssize_t n;

	if (!gate->machine)
		return;
	if (gate->pid <= 0) {
		replace(gate);
		return;
	}
	n = recv(gate->control_fd, &ping, sizeof(ping), MSG_DONTWAIT);
	if (n > 0)
		gate->asked = false;
	if (n == 0 || (n < 0 && errno != EAGAIN) || (tick && gate->asked)) {
		if (n < 0 && errno == EAGAIN)
			log_warn("pillion-gate does not answer: it is ended");
		proc_stop(gate->pid, 0);
		replace(gate);
		return;
	}
	if (tick && send(gate->control_fd, &ping, sizeof(ping), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		gate->asked = true;
}

void gate_finish(struct gate *gate)
{
	if (gate->pid > 0)
		proc_stop(gate->pid, 0);
	pil_close_p(&gate->control_fd);
	free(gate->machine);
	gate->machine = NULL;
	gate->pid = 0;
}
