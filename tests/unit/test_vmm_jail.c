/* SPDX-License-Identifier: Apache-2.0
 *
 * What the monitor's jail forbids is forbidden: tried in a child for each kind of thread, which
 * tells by its exit status which call it was that got through. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/str.h"
#include "base/unixsock.h"
#include "in_child.h"
#include "vmm/jail.h"
#include "vmm/options.h"

static int lock_machine(void)
{
	struct pil_err err = {0};

	return jail_lock(&err);
}

static int lock_vcpu(void)
{
	int ret = lock_machine();

	return ret ? ret : jail_lock_vcpu();
}

static int lock_disk(void)
{
	int ret = lock_machine();

	return ret ? ret : jail_lock_disk();
}

/* Of each call the first three arguments; the others are zero. */
struct call {
	const char *name;
	long nr, args[3];
};

static bool is_refused(const struct call *c)
{
	return syscall(c->nr, c->args[0], c->args[1], c->args[2], 0, 0, 0) == -1 && errno == ENOSYS;
}

/* Runs @check in a child and returns its exit status. */
struct kind {
	int (*lock)(void);
	const struct call *calls;
	int n_calls;
};

/* 0: everything was refused; 255: there is no lock; else the number of a call that was not. */
static int try_all(void *arg)
{
	const struct kind *kind = arg;

	if (kind->lock())
		return 255;
	for (int i = 0; i < kind->n_calls; i++)
		if (!is_refused(&kind->calls[i]))
			return i + 1;
	return getpid() > 0 ? 0 : 254; /* what is allowed still works */
}

static void expect_refused(int (*lock)(void), const struct call *calls, int n_calls)
{
	struct kind kind = {lock, calls, n_calls};
	int status = in_child(try_all, &kind);

	if (status > 0 && status <= n_calls)
		fail_msg("%s is not refused", calls[status - 1].name);
	assert_int_equal(status, 0);
}

static const char root[] = "/";

static const struct call for_all[] = {
	{"open", SYS_open, {(long)root, O_RDONLY}},
	{"openat", SYS_openat, {AT_FDCWD, (long)root}},
	{"openat2", SYS_openat2, {AT_FDCWD, (long)root}},
	{"stat", SYS_stat, {(long)root}},
	{"unlink", SYS_unlink, {(long)root}},
	{"mount", SYS_mount, {(long)root, (long)root}},
	{"memfd_create", SYS_memfd_create, {0}},
	{"execve", SYS_execve, {(long)root}},
	{"fork", SYS_fork, {0}},
	{"clone of a process", SYS_clone, {SIGCHLD}},
	{"clone3", SYS_clone3, {0}},
	{"unshare", SYS_unshare, {0}},
	{"setns", SYS_setns, {-1}},
	{"ptrace", SYS_ptrace, {PTRACE_TRACEME}},
	{"process_vm_readv", SYS_process_vm_readv, {1}},
	{"kill", SYS_kill, {1, 0}},
	{"tgkill of another process", SYS_tgkill, {1, 1, 0}},
	{"prctl to be traced", SYS_prctl, {PR_SET_DUMPABLE, 1}},
	{"bpf", SYS_bpf, {0}},
	{"io_uring_setup", SYS_io_uring_setup, {1}},
	{"userfaultfd", SYS_userfaultfd, {0}},
	{"socket of the network", SYS_socket, {AF_INET, SOCK_STREAM}},
	{"mmap of code", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC}},
	{"mprotect to code", SYS_mprotect, {0, 4096, PROT_EXEC}},
	{"ioctl of a terminal", SYS_ioctl, {0, TIOCSTI}},
	{"ioctl to make a machine", SYS_ioctl, {-1, KVM_CREATE_VM}},
};

static const struct call for_vcpus[] = {
	{"socket", SYS_socket, {AF_UNIX, SOCK_STREAM}},
	{"connect", SYS_connect, {-1}},
	{"sendmsg", SYS_sendmsg, {-1}},
	{"read", SYS_read, {-1}},
	{"pwritev", SYS_pwritev, {-1}},
	{"fallocate", SYS_fallocate, {-1}},
	{"clone of a thread", SYS_clone, {CLONE_THREAD}},
};

static const struct call for_disks[] = {
	{"socket", SYS_socket, {AF_UNIX, SOCK_STREAM}},
	{"connect", SYS_connect, {-1}},
	{"sendmsg", SYS_sendmsg, {-1}},
	{"recvmsg", SYS_recvmsg, {-1}},
	{"getrandom", SYS_getrandom, {0}},
	{"ioctl to run a processor", SYS_ioctl, {-1, KVM_RUN}},
};

static void test_the_machine_cannot_call_what_it_does_not_need(void **state)
{
	(void)state;
	expect_refused(lock_machine, for_all, ARRAY_SIZE(for_all));
}

static void test_a_processor_can_call_less(void **state)
{
	(void)state;
	expect_refused(lock_vcpu, for_all, ARRAY_SIZE(for_all));
	expect_refused(lock_vcpu, for_vcpus, ARRAY_SIZE(for_vcpus));
}

static void test_a_disk_can_call_less(void **state)
{
	(void)state;
	expect_refused(lock_disk, for_all, ARRAY_SIZE(for_all));
	expect_refused(lock_disk, for_disks, ARRAY_SIZE(for_disks));
}

/* ---- files ---- */

struct place {
	char folder[32], *file, *socket;
};

enum { IN_ORDER, NO_JAIL, HOST_SEEN, FILE_OPENED, FILE_MADE, NO_CONNECTION };

/* In the jail, where no system call is filtered yet. */
static int look_around(void *arg)
{
	const struct place *place = arg;
	bool landlock =
		syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0;
	struct options o = {.n_connects = 1, .report_fd = -1};
	struct pil_err err = {0};

	o.connects[0].path = place->socket;
	if (jail_enter(&o, &err) || jail_drop(&o, &err)) {
		fprintf(stderr, "%s\n", err.msg);
		return NO_JAIL;
	}
	if (access("/usr", F_OK) == 0 || access("/proc", F_OK) == 0)
		return HOST_SEEN;
	if (access(place->file, F_OK)) /* beside the socket: it is seen */
		return NO_JAIL;
	if (landlock && (open(place->file, O_RDONLY) >= 0 || errno != EACCES))
		return FILE_OPENED;
	if (mkdir("/made", 0700) == 0 || (landlock && mknod("made", S_IFREG | 0600, 0) == 0))
		return FILE_MADE;
	return unixsock_connect(place->socket) >= 0 ? IN_ORDER : NO_CONNECTION;
}

static void test_no_file_can_be_opened_beside_the_sockets(void **state)
{
	struct place place = {.folder = "/tmp/pillion-jail-XXXXXX"};
	struct pil_err err = {0};
	int fd, status;

	(void)state;
	assert_non_null(mkdtemp(place.folder));
	place.file = str_printf("%s/file", place.folder);
	place.socket = str_printf("%s/socket", place.folder);
	fd = open(place.file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	close(fd);
	fd = unixsock_listen(place.socket, 1, &err);
	assert_true(fd >= 0);
	status = in_child(look_around, &place);
	close(fd);
	unlink(place.file);
	unlink(place.socket);
	rmdir(place.folder);
	free(place.file);
	free(place.socket);
	assert_int_equal(status, IN_ORDER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_machine_cannot_call_what_it_does_not_need),
		cmocka_unit_test(test_a_processor_can_call_less),
		cmocka_unit_test(test_a_disk_can_call_less),
		cmocka_unit_test(test_no_file_can_be_opened_beside_the_sockets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
