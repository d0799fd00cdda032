/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: whoever takes over this process through a device finds
 *
 * - a user namespace without capabilities, and no_new_privs;
 * - an empty root that cannot be written, except for the folders whose sockets the devices connect
 *   to, at their own paths; and Landlock, where the kernel has it, forbids to open even those;
 * - no network, no System V IPC, no other process;
 * - a list of system calls (below): none opens a file, executes or names another process.
 *
 * A pid namespace begins with a child: that is where the machine runs, while the process that was
 * started waits, passes SIGTERM on, and ends as the child does.  Each dies with its parent.
 *
 * The folders are cloned as detached mounts before the root changes and attached after, so that it
 * does not matter where they lie.  A kernel that refuses user namespaces to root is used without.
 */
#include "vmm/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/report.h"
#include "base/str.h"
#include "vmm/kvm_vm.h"
#include "vmm/options.h"

/* <sys/mount.h> and <linux/mount.h> of this libc do not go together */
extern int mount(const char *, const char *, const char *, unsigned long, const void *);
extern int umount2(const char *, int);
#define DETACH 2

enum { MAX_FOLDERS = OPTIONS_MAX_CONNECTS + OPTIONS_MAX_FS, MAX_OPEN_FILES = 8192 };
#define STAGE "/tmp" /* any folder that every host has */

struct folder {
	char *path;
	int fd; /* a detached mount */
};

struct folders {
	struct folder all[MAX_FOLDERS];
	unsigned n;
};

static void folders_finish(struct folders *f)
{
	while (f->n) {
		f->n--;
		pil_close_p(&f->all[f->n].fd);
		free(f->all[f->n].path);
	}
}

/* Remembers the folder of @socket, once. */
static void add_folder(struct folders *f, const char *socket)
{
	char *path = str_printf("%.*s", (int)(strrchr(socket, '/') - socket), socket);

	for (unsigned i = 0; i < f->n; i++) {
		if (!strcmp(f->all[i].path, path)) {
			free(path);
			return;
		}
	}
	f->all[f->n++] = (struct folder){path, -1};
}

static int clone_folders(struct folders *f, const struct options *o, struct pil_err *err)
{
	for (unsigned i = 0; i < o->n_connects; i++)
		add_folder(f, o->connects[i].path);
	for (unsigned i = 0; i < o->n_fs; i++)
		add_folder(f, o->fs[i].socket);
	for (unsigned i = 0; i < f->n; i++) {
		f->all[i].fd = (int)syscall(SYS_open_tree, AT_FDCWD, f->all[i].path,
					    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
		if (f->all[i].fd < 0)
			return pil_err_set(err, errno, "take folder '%s' into the jail",
					   f->all[i].path);
	}
	return 0;
}

static int attach_folders(const struct folders *f, struct pil_err *err)
{
	for (unsigned i = 0; i < f->n; i++) {
		const char *path = f->all[i].path;
		int ret = path_mkdirs(path, 0755);

		if (!ret && syscall(SYS_move_mount, f->all[i].fd, "", AT_FDCWD, path,
				    MOVE_MOUNT_F_EMPTY_PATH))
			ret = -errno;
		if (ret)
			return pil_err_set(err, -ret, "put folder '%s' into the jail", path);
	}
	return 0;
}

/* Waits for @pid, the machine; passes on what asks us to end.  Returns its exit status. */
static int wait_for(pid_t pid, const sigset_t *signals, int report_fd)
{
	struct pil_err err = {0};
	int sig, status;

	report_fd = report_fd < 0 ? -1 : dup2(report_fd, 3);
	pil_close_from(4);
	for (;;) {
		if (sigwait(signals, &sig))
			continue;
		if (sig != SIGCHLD)
			kill(pid, sig);
		else if (waitpid(pid, &status, WNOHANG) == pid)
			break;
	}
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	pil_err_say(&err, EIO, "the machine's process was killed by signal %d", WTERMSIG(status));
	log_err("%s", err.msg);
	report_send(report_fd, &err);
	return VM_END_ERROR;
}

/* Goes on as a child, the first process of the pid namespace.  It tells its parent once it is to
 * die with it: nobody there to be told, it was too late. */
static int enter_pid_namespace(int report_fd, struct pil_err *err)
{
	sigset_t signals;
	int told[2];
	char c = 0;
	pid_t pid;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pid = pipe2(told, O_CLOEXEC) ? -1 : fork();
	if (pid < 0)
		return pil_err_set(err, errno, "make the process of the machine");
	if (pid > 0) {
		close(told[1]);
		if (read(told[0], &c, 1) < 0)
			log_dbg("the machine's process: %s", strerror(errno));
		_exit(wait_for(pid, &signals, report_fd));
	}
	close(told[0]);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || write(told[1], &c, 1) != 1)
		_exit(VM_END_ERROR);
	close(told[1]);
	return 0; /* with the signals blocked: the first process of a namespace would lose them */
}

static int write_text(const char *path, const char *text)
{
	_auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static int leave_namespaces(struct pil_err *err)
{
	int most = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID;
	_auto_free char *uid_map = str_printf("%u %u 1", getuid(), getuid());
	_auto_free char *gid_map = str_printf("%u %u 1", getgid(), getgid());

	if (unshare(CLONE_NEWUSER | most) == 0) {
		int ret = write_text("/proc/self/setgroups", "deny");

		if (!ret)
			ret = write_text("/proc/self/uid_map", uid_map);
		if (!ret)
			ret = write_text("/proc/self/gid_map", gid_map);
		return ret ? pil_err_set(err, -ret, "map the ids of the jail") : 0;
	}
	if (getuid() == 0 && unshare(most) == 0)
		return 0;
	pil_err_hint(err, "sudo sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces="
			  "65536 kernel.apparmor_restrict_unprivileged_userns=0");
	return pil_err_set(err, errno, "make the namespaces of the jail");
}

/* Makes the current folder, a mount, the root.  An initramfs cannot be pivoted away from: it is
 * covered, as when a system boots. */
static int pivot(void)
{
	if (syscall(SYS_pivot_root, ".", ".") == 0)
		return umount2(".", DETACH);
	return errno == EINVAL && mount(".", "/", NULL, MS_MOVE, NULL) == 0 ? chroot(".") : -1;
}

static int change_root(const struct folders *folders, struct pil_err *err)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	int ret;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("jail", STAGE, "tmpfs", flags, "size=64k,nr_inodes=256,mode=0755") ||
	    chdir(STAGE) || pivot() || chdir("/"))
		return pil_err_set(err, errno, "make the root of the jail");
	ret = attach_folders(folders, err);
	if (!ret && mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL))
		ret = pil_err_set(err, errno, "close the root of the jail");
	return ret;
}

static int drop_capabilities(struct pil_err *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[2] = {0};

	for (int cap = 0; prctl(PR_CAPBSET_DROP, cap) == 0; cap++)
		; /* until there is no such capability */
	if (syscall(SYS_capset, &header, none) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return pil_err_set(err, errno, "drop all capabilities");
	return 0;
}

/* No file can be opened or made any more.  Kernels without Landlock do not mind. */
static void forbid_files(void)
{
	struct landlock_ruleset_attr none = {.handled_access_fs =
						     (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1};
	_auto_fd int fd = (int)syscall(SYS_landlock_create_ruleset, &none, sizeof(none), 0);

	if (fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0))
		log_dbg("jail: no landlock: %s", strerror(errno));
}

int jail_enter(const struct options *o, struct pil_err *err)
{
	struct folders folders = {0};
	int ret = leave_namespaces(err);

	if (!ret)
		ret = clone_folders(&folders, o, err);
	if (!ret)
		ret = change_root(&folders, err);
	folders_finish(&folders);
	return ret;
}

int jail_drop(const struct options *o, struct pil_err *err)
{
	const struct rlimit no_core = {0, 0};
	struct rlimit files;
	int ret = drop_capabilities(err);

	if (ret)
		return ret;
	forbid_files();
	setrlimit(RLIMIT_CORE, &no_core);
	if (!getrlimit(RLIMIT_NOFILE, &files)) { /* each connection of the guest takes one */
		files.rlim_cur = files.rlim_max < MAX_OPEN_FILES ? files.rlim_max : MAX_OPEN_FILES;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	return enter_pid_namespace(o->report_fd, err);
}
