/* SPDX-License-Identifier: Apache-2.0
 *
 * selftest.c -- a scratch world in which root of the host runs the cases: they must be allowed
 * there, else they could not tell a machine that holds from one that does not.
 *
 * It looks like a machine: folders by the same names, mounted read-only; a first process with a log
 * file; a broker's socket.  Mount, pid, IPC and host name are its own; the user namespace
 * is not, which is what makes the difference.  Its root is a tmpfs, so that nothing of the
 * host's disk is at stake. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile.h"

static const char *const folders[] = {
	"proc",
	"sys",
	"dev",
	"tmp",
	"mnt",
	"run",
	"mnt/host",
	"mnt/host/ro",
	"mnt/models",
	"run/pillion",
	"usr",
	"run/pillion/host",
	"usr/lib",
	"usr/lib/pillion",
	"etc",
	"usr/lib/pillion/lib",
	"usr/lib/pillion/bin",
	"log",
};

static const char *const files[] = {"usr/lib/pillion/lib/libggml-pillion.so",
				    "usr/lib/pillion/bin/pillion-init", "mnt/host/ro/note"};

static const char *const read_only[] = {"mnt/host", "mnt/host/ro", "mnt/models", "run/pillion/host",
					"usr/lib/pillion"};

static void listen_at(const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 16))
		perror(path);
}

static int make_files(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		if (mkdir(folders[i], 0755))
			return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		if (mknod(files[i], S_IFREG | 0644, 0))
			return -errno;
	if (mknod("image-disk", S_IFBLK | 0600, makedev(7, 0)) ||
	    mknod("image-kmsg", S_IFCHR | 0600, makedev(1, 11)) ||
	    mknod("mnt/host/ro/kmsg", S_IFCHR | 0600, makedev(1, 11)) ||
	    mkfifo("mnt/host/ro/fifo", 0666))
		return -errno;
	listen_at("mnt/host/ro/sock");
	listen_at("run/pillion/host/broker.sock");
	listen_at("run/pillion/host/other.sock");
	return open("mnt/host/ro/fifo", O_RDWR | O_CLOEXEC) < 0 ? -errno : 0;
}

static int make_mounts(void)
{
	if (mount("proc", "proc", "proc", 0, NULL) ||
	    mount("/sys", "sys", NULL, MS_BIND | MS_REC, NULL) ||
	    mount("/dev", "dev", NULL, MS_BIND | MS_REC, NULL) ||
	    mount("tmp", "tmp", "tmpfs", 0, NULL) || mount("log", "log", "tmpfs", 0, NULL))
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(read_only); i++)
		if (mount(read_only[i], read_only[i], NULL, MS_BIND | MS_REC, NULL) ||
		    mount(NULL, read_only[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV,
			  NULL))
			return -errno;
	return 0;
}

/* The first process: holds the log, and waits. */
static int first_process(const char *folder, int (*run_all)(void))
{
	int status, ret;
	pid_t runner;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("scratch", folder, "tmpfs", 0, NULL) || chdir(folder))
		return errno;
	ret = make_files();
	if (!ret)
		ret = make_mounts();
	if (!ret && syscall(SYS_pivot_root, ".", "."))
		ret = -errno;
	if (ret) {
		fprintf(stderr, "hostile: scratch world: %s\n", strerror(-ret));
		return 1;
	}
	umount2(".", MNT_DETACH);
	if (open("log/log", O_WRONLY | O_APPEND | O_CREAT, 0600) < 0 ||
	    open("log", O_RDONLY | O_DIRECTORY) < 0 || umount2("log", MNT_DETACH))
		return errno;
	runner = fork();
	if (runner == 0)
		_exit(run_all());
	while (waitpid(runner, &status, 0) != runner)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int hostile_self_test(int (*run_all)(void))
{
	const char *folder = hostile_told("folder");
	pid_t first;
	int status;

	if (!folder || unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)) {
		fprintf(stderr, "hostile: --self-test folder=EMPTY_FOLDER, as root\n");
		return 2;
	}
	first = fork();
	if (first == 0)
		_exit(first_process(folder, run_all));
	if (first < 0 || waitpid(first, &status, 0) != first)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
