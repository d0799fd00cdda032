/* SPDX-License-Identifier: Apache-2.0
 *
 * daemon.h -- going to the background once the work has begun.
 *
 * Fork first, set up in the child: epoll and signalfd belong to the process that made them. */
#ifndef PIL_DAEMON_H
#define PIL_DAEMON_H

#include "base/compiler.h"
#include "base/err.h"

/* Forks.  The parent never returns: it exits with the status the child reports, or with failure
 * when the child ends before.  The child gets the descriptor to report on, in a session of its own.
 */
int daemon_detach(struct pil_err *err) PIL_MUST_CHECK;

/* Lets the parent exit with @status; then @ready_fd is closed.  -1 is fine. */
void daemon_report(int *ready_fd, int status);

#endif
