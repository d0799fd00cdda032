/* SPDX-License-Identifier: Apache-2.0
 *
 * in_child.h -- for tests of what cannot be undone, a jail above all. */
#ifndef PIL_TEST_IN_CHILD_H
#define PIL_TEST_IN_CHILD_H

#include <sys/wait.h>
#include <unistd.h>

/* Runs @check(@arg) in a child; returns what it returned.  Included after <cmocka.h>. */
static inline int in_child(int (*check)(void *arg), void *arg)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(check(arg));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

#endif
