/* SPDX-License-Identifier: Apache-2.0
 *
 * What a client sends to the agent in a machine: the input is the whole stream.  No command is
 * really started: fork() says it was, and kill() that the signal arrived. */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "guest/init/guest_session.h"

enum { COMMAND = 1 << 30, MAX_INPUT = 128 << 10 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
pid_t fork(void);
int kill(pid_t pid, int signal_number);

pid_t fork(void)
{
	return COMMAND;
}

int kill(pid_t pid, int signal_number)
{
	(void)signal_number;
	if (pid != -COMMAND) /* a signal for somebody else */
		abort();
	return 0;
}

static void stop(struct guest *guest)
{
	loop_stop(guest->loop, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct guest guest = {.distro = "fuzz", .default_user = "root", .became_idle = stop};
	const int room = 2 * MAX_INPUT;
	int pair[2];

	if (!guest.loop) {
		signal(SIGPIPE, SIG_IGN); /* as pillion-init does */
		setenv("PILLION_LOG", "err", 1);
		log_init("fuzz_guest_session");
		list_init(&guest.sessions);
		if (loop_create(&guest.loop))
			abort();
	}
	if (size > MAX_INPUT || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return 0;
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	if (pil_write_all(pair[1], data, size))
		abort();
	shutdown(pair[1], SHUT_WR); /* the end of the stream is the session's */
	guest_session_create(&guest, pair[0]);
	loop_run(guest.loop);
	if (!list_empty(&guest.sessions))
		abort();
	close(pair[1]);
	return 0;
}
