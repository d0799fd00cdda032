/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors that a peer has queued.  Linux 6.16 can refuse them on a socket (SO_PASSRIGHTS).
 * For older kernels there is a timer: its signal interrupts a close() that waits for the peer. */
#include "base/queued.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/time.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

static int set_pass(int sock, int on)
{
	return setsockopt(sock, SOL_SOCKET, SO_PASSRIGHTS, &on, sizeof(on)) ? -errno : 0;
}

int queued_fds_refuse(int sock)
{
	return set_pass(sock, 0);
}

/* #syscalls: setsockopt */
int queued_fds_allow(int sock)
{
	return set_pass(sock, 1);
}

static void nothing(int number)
{
	(void)number;
}

static void catch_ticks(void)
{
	static bool caught;
	const struct sigaction action = {.sa_handler = nothing};
	sigset_t set;

	if (caught)
		return;
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	caught =
		sigaction(SIGALRM, &action, NULL) == 0 && sigprocmask(SIG_UNBLOCK, &set, NULL) == 0;
}

/* It ticks on: one drop may follow another. */
void queued_drop_begin(void)
{
	const struct timeval tick = {.tv_usec = QUEUED_DROP_MS * 1000};
	const struct itimerval timer = {.it_interval = tick, .it_value = tick};

	catch_ticks();
	setitimer(ITIMER_REAL, &timer, NULL);
}

void queued_drop_end(void)
{
	const struct itimerval none = {0};

	setitimer(ITIMER_REAL, &none, NULL);
}
