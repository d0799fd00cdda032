/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of calls that a sandbox may not make has the numbers that libseccomp knows, and the
 * filter does what the list says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "emulated.h"
#include "machine/calls.h"

static uint32_t resolved(uint32_t arch, const char *name)
{
	int nr = seccomp_syscall_resolve_name_arch(arch, name);

	return nr < 0 ? CALLS_NOT_A_CALL : (uint32_t)nr;
}

static void test_numbers_are_those_of_the_names(void **state)
{
	(void)state;
	for (const struct denied_call *d = calls_denied; d->name; d++) {
		assert_int_equal(resolved(SCMP_ARCH_X86_64, d->name), d->nr);
		assert_int_equal(resolved(SCMP_ARCH_X86, d->name), d->nr32);
	}
}

static bool pipes_stay_small(void)
{
	int fds[2];

	return pipe(fds) == 0 && fcntl(fds[0], F_SETPIPE_SZ, 64 << 10) == 64 << 10 &&
	       fcntl(fds[0], F_SETPIPE_SZ, 128 << 10) == -1 && errno == EPERM &&
	       fcntl(fds[0], F_GETPIPE_SZ) == 64 << 10 && fcntl(fds[0], F_SETFD, FD_CLOEXEC) == 0 &&
	       fcntl(fds[0], F_GETFD, 1 << 20) == FD_CLOEXEC;
}

static bool core_limit_stays(void)
{
	struct rlimit none = {0, 0}, files = {64, 64}, now = {7, 7};

	return setrlimit(RLIMIT_CORE, &none) == 0 && prlimit(0, RLIMIT_CORE, &none, NULL) == 0 &&
	       syscall(SYS_setrlimit, RLIMIT_CORE, &none) == 0 &&
	       prlimit(0, RLIMIT_CORE, NULL, &now) == 0 && now.rlim_cur == 1 && now.rlim_max == 1 &&
	       setrlimit(RLIMIT_NOFILE, &files) == 0 && getrlimit(RLIMIT_NOFILE, &now) == 0 &&
	       now.rlim_max == 64;
}

/* In a child under the filter: 0, or the line of what was not as expected. */
static int try_all(void)
{
	struct sock_filter code[CALLS_MAX_CODE];
	struct sock_fprog filter = {.len = (unsigned short)calls_filter(code), .filter = code};
	const struct rlimit no_core = {1, 1};

	if (filter.len >= CALLS_MAX_CODE || setrlimit(RLIMIT_CORE, &no_core) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
		return __LINE__ & 0xff;
	for (const struct denied_call *d = calls_denied; d->name; d++)
		if (d->nr != CALLS_NOT_A_CALL &&
		    (syscall(d->nr, -1, -1, -1, -1, -1) != -1 || errno != d->error))
			return __LINE__ & 0xff;
	for (int family = 0; family < 64; family++) {
		int fd = socket(family, SOCK_RAW, 0);
		int known = family == AF_UNIX || family == AF_INET || family == AF_INET6 ||
			    family == AF_NETLINK || family == AF_PACKET;

		if (fd >= 0)
			close(fd);
		if (known == (fd < 0 && errno == EAFNOSUPPORT))
			return __LINE__ & 0xff;
	}
	if (syscall(SYS_personality, 0xffffffff) != 0 || syscall(SYS_personality, 0x0400000) != -1)
		return __LINE__ & 0xff;
	if (syscall(470) != -1 || errno != ENOSYS || syscall(0x40000000 | SYS_getpid) != -1 ||
	    errno != ENOSYS)
		return __LINE__ & 0xff;
	if (!core_limit_stays())
		return __LINE__ & 0xff;
	if (!pipes_stay_small())
		return __LINE__ & 0xff;
	return getpid() > 0 && syscall(SYS_unshare, 0) == 0 ? 0 : __LINE__ & 0xff;
}

static void test_filter_does_what_the_list_says(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	skip_if_emulated("the filter would be the emulator's");
	pid = fork();
	if (pid == 0)
		_exit(try_all());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers_are_those_of_the_names),
		cmocka_unit_test(test_filter_does_what_the_list_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
