/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the child enters a new user namespace and waits; the parent maps its ids and
 * lets it go on; the child becomes uid 0 of the namespace and executes the program.
 *
 * Root writes the maps itself, for the range ROOT_FIRST_ID..+65535: above the ranges that useradd
 * hands out in /etc/subuid and that systemd takes for its containers, below 2^31.  So root's
 * machines are as unprivileged on the host as anybody's.  What they need of the host is bound below
 * STAGE_DIR before the namespace is entered, because afterwards nobody in there could walk to it.
 *
 * Others ask newuidmap and newgidmap, which allow the user's own id (as 0) and what /etc/subuid and
 * /etc/subgid grant.
 *
 * With USERNS_OWN_PIDS the child makes another one, the first process of a pid namespace, and ends:
 * that one is our child by CLONE_PARENT, waits and executes.  When it ends, or we do, the kernel
 * ends all that it started, at whatever moment that is.  bubblewrap's --die-with-parent alone does
 * not: what it starts may ask for its end too late, and stay.
 */
#include "port/userns.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"

enum { ID_COUNT = 65536 };
#define STAGE_DIR     "/mnt"      /* of the program's own mount namespace */
#define ROOT_FIRST_ID 2013265920u /* 0x78000000 */

/* The first range of @user in /etc/subuid or /etc/subgid; false: none of at least ID_COUNT. */
static bool find_subid_range(const char *path, const char *user, uid_t uid, unsigned long *first)
{
	_auto_free char *text = NULL;
	_auto_free char *uid_text = str_printf("%u", uid);
	char *save = NULL;

	if (pil_read_file(path, 1 << 20, &text) < 0)
		return false;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char *start = strchr(line, ':'), *count = start ? strchr(start + 1, ':') : NULL;
		uint64_t s, c;

		if (!count)
			continue;
		*start++ = '\0';
		*count++ = '\0';
		if ((strcmp(line, user) && strcmp(line, uid_text)) ||
		    !str_to_u64(start, UINT32_MAX, &s) || !str_to_u64(count, UINT32_MAX, &c) ||
		    c < ID_COUNT)
			continue;
		*first = s;
		return true;
	}
	return false;
}

static int write_map(pid_t pid, const char *file, struct pil_err *err)
{
	_auto_free char *path = str_printf("/proc/%d/%s", pid, file);
	_auto_free char *map = str_printf("0 %u %u\n", ROOT_FIRST_ID, ID_COUNT);
	_auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, map, strlen(map)) < 0)
		return pil_err_set(err, errno, "map ids of a user namespace in %s", path);
	return 0;
}

static int run_mapper(const char *program, pid_t pid, unsigned own_id, unsigned long first,
		      struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	struct proc_opts opts = {.stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
	pid_t mapper;
	int status;

	argv_add(&a, program);
	argv_addf(&a, "%d", pid);
	argv_add(&a, "0");
	argv_addf(&a, "%u", own_id);
	argv_add(&a, "1");
	argv_add(&a, "1");
	argv_addf(&a, "%lu", first);
	argv_addf(&a, "%d", ID_COUNT - 1);
	mapper = proc_spawn(a.v, &opts, err);
	if (mapper < 0) {
		pil_err_hint(err, "sudo apt install uidmap");
		return (int)mapper;
	}
	status = proc_wait(mapper, 10000);
	if (status)
		return pil_err_say(err, EPERM,
				   "map ids of a user namespace: %s failed with status %d", program,
				   status);
	return 0;
}

static int map_ids(pid_t pid, struct pil_err *err)
{
	struct passwd *pw = getpwuid(getuid());
	const char *user = pw ? pw->pw_name : "";
	unsigned long uid_first, gid_first;
	int ret;

	if (getuid() == 0) {
		ret = write_map(pid, "uid_map", err);
		return ret ? ret : write_map(pid, "gid_map", err);
	}
	if (!find_subid_range("/etc/subuid", user, getuid(), &uid_first) ||
	    !find_subid_range("/etc/subgid", user, getuid(), &gid_first)) {
		pil_err_hint(
			err,
			"sudo usermod --add-subuids 231072-296607 --add-subgids 231072-296607 %s",
			user);
		return pil_err_say(
			err, EPERM,
			"user '%s' has no range of 65536 ids in /etc/subuid and /etc/subgid", user);
	}
	ret = run_mapper("newuidmap", pid, getuid(), uid_first, err);
	return ret ? ret : run_mapper("newgidmap", pid, getgid(), gid_first, err);
}

const char *userns_stage_add(struct userns_stage *stage, const char *source)
{
	char *place = stage->place[stage->n];

	if (stage->n == USERNS_MAX_STAGES - 1)
		abort(); /* a bug: all callers know their number */
	snprintf(place, sizeof(stage->place[0]), STAGE_DIR "/%d", stage->n);
	stage->source[stage->n++] = source;
	return getuid() == 0 ? place : source;
}

static int bind_one(const char *source, const char *target)
{
	struct stat st;
	int fd;

	if (stat(source, &st))
		return -errno;
	if (S_ISDIR(st.st_mode)) {
		if (mkdir(target, 0755))
			return -errno;
	} else {
		fd = open(target, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)
			return -errno;
		close(fd);
	}
	return mount(source, target, NULL, MS_BIND | MS_REC, NULL) ? -errno : 0;
}

/* Root only: everything staged appears below STAGE_DIR of a mount namespace of our own. */
static int bind_stages(const struct userns_stage *stage)
{
	char hidden[USERNS_MAX_STAGES][32];
	int fds[USERNS_MAX_STAGES], ret = 0;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -errno;
	for (int i = 0; i < stage->n; i++) { /* a source may lie below STAGE_DIR itself */
		fds[i] = open(stage->source[i], O_PATH | O_CLOEXEC);
		if (fds[i] < 0)
			return -errno;
		snprintf(hidden[i], sizeof(hidden[i]), "/proc/self/fd/%d", fds[i]);
	}
	if (mount("pillion", STAGE_DIR, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=64k"))
		return -errno;
	for (int i = 0; i < stage->n && !ret; i++)
		ret = bind_one(hidden[i], stage->place[i]);
	return ret;
}

/* Goes on as a sibling, the first process of the pid namespace unshared before. */
static int become_first_process(int ready_fd)
{
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, 0);

	if (pid > 0)
		_exit(write(ready_fd, &pid, sizeof(pid)) == sizeof(pid) ? 0 : 126);
	return pid < 0 ? -errno : 0;
}

/* Lowers @max to the number in @path. */
static void lower_to(rlim_t *max, const char *path)
{
	_auto_free char *text = NULL;
	uint64_t value;

	if (pil_read_file(path, 32, &text) <= 0)
		return;
	text[strcspn(text, "\n")] = '\0';
	if (str_to_u64(text, UINT32_MAX, &value) && value < *max)
		*max = value;
}

/* Rootless, the kernel counts these for the user, whose other programs must be able to go on.  It
 * keeps what is set when a namespace is made as a bound of all that runs in it. */
static void leave_half_to_the_user(void)
{
	static const __rlimit_resource_t shared[] = {RLIMIT_NPROC, RLIMIT_SIGPENDING,
						     RLIMIT_MSGQUEUE, RLIMIT_MEMLOCK};

	for (size_t i = 0; i < ARRAY_SIZE(shared); i++) {
		struct rlimit limit;

		if (getrlimit(shared[i], &limit))
			continue;
		if (shared[i] == RLIMIT_NPROC) { /* more than these there are not, for anybody */
			lower_to(&limit.rlim_max, "/proc/sys/kernel/threads-max");
			lower_to(&limit.rlim_max, "/proc/sys/kernel/pid_max");
		}
		if (limit.rlim_max == RLIM_INFINITY)
			continue;
		limit.rlim_max /= 2;
		if (limit.rlim_cur > limit.rlim_max)
			limit.rlim_cur = limit.rlim_max;
		if (setrlimit(shared[i], &limit))
			log_warn("limit %d: %s", (int)shared[i], strerror(errno));
	}
}

static int enter_namespaces(const struct userns_stage *stage, enum userns_pids pids, int ready_fd)
{
	pid_t pid = getpid();
	int ret = stage && getuid() == 0 ? bind_stages(stage) : 0;

	if (ret)
		return ret;
	proc_leave_keyring();
	leave_half_to_the_user();
	if (unshare(CLONE_NEWUSER | (pids == USERNS_OWN_PIDS ? CLONE_NEWPID : 0)))
		return -errno;
	if (pids == USERNS_OWN_PIDS)
		return become_first_process(ready_fd);
	return write(ready_fd, &pid, sizeof(pid)) == sizeof(pid) ? 0 : -errno;
}

struct start_pipes {
	int ready[2];  /* the pid of who executes, once its namespaces are there */
	int go[2];     /* the go-ahead, once its ids are mapped; without it, it ends */
	int report[2]; /* what failed, as in proc.c */
};

/* The child: waits for the go-ahead, becomes root of the namespace, executes. */
static PIL_NORETURN void enter(char *const *argv, const struct userns_stage *stage,
			       enum userns_pids pids, const struct proc_opts *opts,
			       const struct start_pipes *pipes)
{
	char c;
	int ret;

	close(pipes->ready[0]);
	close(pipes->go[1]);
	close(pipes->report[0]);
	ret = enter_namespaces(stage, pids, pipes->ready[1]);
	close(pipes->ready[1]);
	if (!ret && read(pipes->go[0], &c, 1) != 1)
		_exit(126);
	if (!ret && (setresgid(0, 0, 0) || setgroups(0, NULL) || setresuid(0, 0, 0)))
		ret = -errno;
	if (!ret && stage && stage->prepare)
		ret = stage->prepare(stage->arg);
	if (!ret)
		ret = proc_exec(argv, opts, pipes->report[1]);
	ret = -ret;
	if (write(pipes->report[1], &ret, sizeof(ret)) < 0)
		_exit(126);
	_exit(127);
}

/* Learns who executes, @child or what that made, and gives it its ids. */
static int map_and_let_go(pid_t child, pid_t *pid, const struct start_pipes *pipes,
			  struct pil_err *err)
{
	int ret = pil_read_all(pipes->ready[0], pid, sizeof(*pid));

	if (ret) {
		*pid = child;
		return pil_err_say(err, EPERM, "make a user namespace"); /* it reports why */
	}
	if (*pid != child)
		waitpid(child, NULL, 0);
	ret = map_ids(*pid, err);
	if (!ret && write(pipes->go[1], "", 1) != 1)
		ret = pil_err_set(err, errno, "let process %d go on", *pid);
	return ret;
}

pid_t userns_spawn(char *const *argv, const struct userns_stage *stage, enum userns_pids pids,
		   const struct proc_opts *opts, struct pil_err *err)
{
	struct start_pipes pipes;
	int code = 0, ret;
	pid_t child, pid;

	if (pipe2(pipes.ready, O_CLOEXEC) || pipe2(pipes.go, O_CLOEXEC) ||
	    pipe2(pipes.report, O_CLOEXEC))
		return pil_err_set(err, errno, "start '%s'",
				   argv[0]); /* descriptors end with the process */
	child = pid = fork();
	if (child == 0)
		enter(argv, stage, pids, opts, &pipes);
	close(pipes.ready[1]);
	close(pipes.go[0]);
	close(pipes.report[1]);
	ret = child < 0 ? pil_err_set(err, errno, "start '%s': fork", argv[0])
			: map_and_let_go(child, &pid, &pipes, err);
	close(pipes.go[1]);
	close(pipes.ready[0]);
	if (pil_read_all(pipes.report[0], &code, sizeof(code)) == 0) {
		ret = pil_err_set(err, code, "start '%s' in a user namespace", argv[0]);
		if (code == EPERM || code == ENOSPC)
			pil_err_hint(err, "sudo sysctl kernel.unprivileged_userns_clone=1 "
					  "user.max_user_namespaces=65536");
	}
	close(pipes.report[0]);
	if (ret && pid > 0)
		waitpid(pid, NULL, 0);
	return ret ? ret : pid;
}

/* Root only: a /dev/net/tun of our own for everybody, in a mount namespace of our own. */
static int offer_tun(void)
{
	mode_t old = umask(0);
	int ret = 0;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("pillion", "/dev/net", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=4k") ||
	    mknod("/dev/net/tun", S_IFCHR | 0666, makedev(10, 200)))
		ret = -errno;
	umask(old);
	return ret;
}

static int join(int ns_fd)
{
	int ret = getuid() == 0 && path_exists("/dev/net/tun") ? offer_tun() : 0;

	if (ret)
		return ret;
	return setns(ns_fd, CLONE_NEWUSER) || setresgid(0, 0, 0) || setresuid(0, 0, 0) ? -errno : 0;
}

/* The child of the two below: @argv NULL for none.  Reports what failed. */
static PIL_NORETURN void enter_joined(int ns_fd, int (*prepare)(void *arg), void *arg,
				      char *const *argv, const struct proc_opts *opts,
				      int report_fd)
{
	int code = join(ns_fd);

	if (!code && prepare)
		code = prepare(arg);
	if (!code && argv)
		code = proc_exec(argv, opts, report_fd);
	code = -code;
	if (write(report_fd, &code, sizeof(code)) < 0)
		_exit(126);
	_exit(127);
}

static pid_t fork_joined(pid_t target, int (*prepare)(void *arg), void *arg, char *const *argv,
			 const struct proc_opts *opts, const char *what, struct pil_err *err)
{
	_auto_free char *path = str_printf("/proc/%d/ns/user", target);
	_auto_fd int ns_fd = open(path, O_RDONLY | O_CLOEXEC);
	int report[2], code = 0;
	pid_t pid;

	if (ns_fd < 0 || pipe2(report, O_CLOEXEC))
		return pil_err_set(err, errno, "%s in the namespace of process %d", what, target);
	pid = fork();
	if (pid == 0) {
		close(report[0]);
		enter_joined(ns_fd, prepare, arg, argv, opts, report[1]);
	}
	close(report[1]);
	if (pid < 0)
		code = errno;
	else if (pil_read_all(report[0], &code, sizeof(code)) == 0)
		waitpid(pid, NULL, 0);
	close(report[0]);
	return code ? pil_err_set(err, code, "%s in the namespace of process %d", what, target)
		    : pid;
}

pid_t userns_join_spawn(pid_t target, char *const *argv, const struct proc_opts *opts,
			int (*prepare)(void *arg), void *arg, struct pil_err *err)
{
	_auto_free char *what = str_printf("start '%s'", argv[0]);

	return fork_joined(target, prepare, arg, argv, opts, what, err);
}

int userns_join_call(pid_t target, int (*function)(void *arg), void *arg, struct pil_err *err)
{
	pid_t pid = fork_joined(target, function, arg, NULL, NULL, "make something", err);

	return pid < 0 ? pid : 0;
}

int userns_mkdir(const char *path)
{
	if (mkdir(path, 0755))
		return -errno;
	if (getuid() == 0 && chown(path, ROOT_FIRST_ID, ROOT_FIRST_ID))
		return -errno;
	return 0;
}

int userns_own(const char *path)
{
	return getuid() == 0 && chown(path, ROOT_FIRST_ID, ROOT_FIRST_ID) ? -errno : 0;
}

int userns_remove_tree(const char *path, struct pil_err *err)
{
	struct userns_stage stage = {0};
	struct proc_opts opts = {.stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
	const char *seen;
	struct stat st;
	pid_t pid;
	int status;

	if (lstat(path, &st))
		return 0;
	if (S_ISLNK(st.st_mode)) /* what it leads to is not removed */
		return unlink(path) ? pil_err_set(err, errno, "remove '%s'", path) : 0;
	seen = userns_stage_add(&stage, path);
	/* The folder itself belongs to us: only what is in it needs the namespace. */
	pid = userns_spawn((char *[]){(char *)"find", (char *)seen, (char *)"-xdev",
				      (char *)"-mindepth", (char *)"1", (char *)"-delete", NULL},
			   &stage, USERNS_HOST_PIDS, &opts, err);
	if (pid < 0)
		return pid;
	status = proc_wait(pid, 300000);
	if (status)
		return pil_err_say(err, EIO, "remove '%s': find -delete ended with status %d", path,
				   status);
	status = path_remove_tree(path);
	return status ? pil_err_set(err, -status, "remove '%s'", path) : 0;
}
