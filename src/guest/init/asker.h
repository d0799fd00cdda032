/* SPDX-License-Identifier: Apache-2.0
 *
 * asker.h -- does a program wait for what is typed at a terminal? */
#ifndef PIL_ASKER_H
#define PIL_ASKER_H

#include <stdbool.h>
#include <sys/types.h>

enum asker {
	ASKER_NONE,
	ASKER_WAITS,   /* a process reads from the terminal, or waits until it can */
	ASKER_UNKNOWN, /* this kernel does not tell */
};

/* Looks at all processes whose controlling terminal is @tty. */
enum asker asker_find(dev_t tty);

/* Is the system call that @text shows, the contents of /proc/PID/syscall, one that waits for a
 * descriptor for which @is_tty?  @pid: whose memory to look into. */
bool asker_waits(pid_t pid, const char *text, bool (*is_tty)(pid_t pid, int fd, void *arg),
		 void *arg);

#endif
