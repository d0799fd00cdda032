/* SPDX-License-Identifier: Apache-2.0
 *
 * passt.c -- see passt.h.  passt jails itself: nobody's user, no capabilities, an empty root,
 * seccomp. It takes no connections from the host for the machine (that is the forwarder's work),
 * and does not show the host's own loopback to the machine unless asked. */
#include "machine/passt.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/proc.h"

pid_t passt_start(bool map_loopback, int say_fd, int *card_fd, struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	_auto_fd int own_fd = -1;
	_auto_fd int passt_fd = -1;
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = say_fd,
				 .stderr_fd = say_fd,
				 .keep_fds = &passt_fd,
				 .n_keep_fds = 1,
				 .new_session = true,
				 .die_with_us = true};
	int fds[2];
	pid_t pid;

	if (!proc_have("passt")) {
		pil_err_hint(err, "sudo apt install passt");
		return pil_err_say(err, ENOENT, "start the network: passt is missing");
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return pil_err_set(err, errno, "start the network");
	own_fd = fds[0];
	passt_fd = fds[1];
	argv_add_all(&a, (const char *const[]){"passt", "-f", "-q", "-a", PASST_ADDRESS, "-n", "24",
					       "-g", PASST_GATEWAY, "--dns-forward", PASST_DNS,
					       "-t", "none", "-u", "none", NULL});
	if (!map_loopback)
		argv_add(&a, "--no-map-gw");
	argv_add(&a, "--fd");
	argv_addf(&a, "%d", passt_fd);
	pid = proc_spawn(a.v, &opts, err);
	if (pid >= 0)
		*card_fd = pil_take_fd(&own_fd);
	return pid;
}
