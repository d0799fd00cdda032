/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: an executor runs code of vendors on data of guests, so it is given nothing
 * but its device.  bubblewrap makes the jail: a read-only root, no network, its own pid, ipc, uts
 * and mount namespaces, no capabilities, no_new_privs, and a list of system calls (filter.c).
 *
 * The root is the runtime kit.  Its libraries are Debian's of today and need a C library as new;
 * pillion-exec needs libc alone and was built against an older one, so it runs there.  With
 * accel.ggml_dir it is the parts of the host that hold programs and libraries, and that folder: no
 * home folders, no /var, no secrets of /etc.
 *
 * Who it is: a user starts it in a user namespace, as himself, groups and all, which the device
 * nodes need.  Root starts it as JAIL_UID, in no user namespace (the kit may lie where only root
 * may go, and some hosts keep those namespaces from everybody but root): bubblewrap leaves it the
 * capabilities to change its user, and --as makes it do so before it loads anything.
 *
 * It does not die with the broker: programs in the middle of their work do not notice. */
#include "broker/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "broker/filter.h"
#include "port/device_nodes.h"

enum {
	JAIL_UID = 65534,         /* nobody: in here it meets no other process and no file */
	SCRATCH_BYTES = 256 << 20 /* of /tmp, and of /dev/shm: caches of compilers of shaders */
};

/* The API whose library may come from a folder of the user's choice instead of the kit. */
#define RUNTIME_KEY "ggml_dir"

static const char *runtime_dir(const struct config *config)
{
	return config->ggml_dir;
}

/* Is @root, the kit or the folder of libraries, one that the executor's user can use? */
static int check_root(const char *root, bool is_kit, struct pil_err *err)
{
	struct stat st;

	if (root[0] != '/' || stat(root, &st)) {
		pil_err_hint(err, is_kit ? "run 'pillion --update' to make the kit"
					 : "mend " RUNTIME_KEY
					   " in the [accel] section of the config");
		return pil_err_say(err, ENOENT, "start executor: no %s '%s'",
				   is_kit ? "runtime kit in" : "folder " RUNTIME_KEY " =", root);
	}
	if (!(st.st_mode & S_IXOTH) && (getuid() == 0 || st.st_uid != getuid())) {
		pil_err_hint(err, "chmod o+rx '%s'", root);
		return pil_err_say(err, EACCES,
				   "start executor: '%s' is closed to the executor's user", root);
	}
	return 0;
}

int jail_init(struct jail *jail, const struct state_dirs *dirs, const struct config *config,
	      struct pil_err *err)
{
	int ret;

	*jail = (struct jail){.config = config, .lib_dir = runtime_dir(config)};
	jail->program = state_find_program("exec", "pillion-exec", err);
	if (!jail->program)
		return -ENOENT;
	if (jail->lib_dir) {
		ret = check_root(jail->lib_dir, false, err);
	} else {
		jail->root = str_printf("%s/kits/runtime/rootfs", dirs->data);
		ret = check_root(jail->root, true, err);
	}
	if (ret)
		jail_finish(jail);
	return ret;
}

void jail_finish(struct jail *jail)
{
	free(jail->root);
	free(jail->program);
	*jail = (struct jail){0};
}

/* Device nodes of GPUs and NPUs, those that are there. */
static void add_device_nodes(struct argv *a)
{
	glob_t found;

	device_nodes_top("", &found);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		argv_add(a, "--dev-bind");
		argv_add(a, found.gl_pathv[i]);
		argv_add(a, found.gl_pathv[i]);
	}
	globfree(&found);
}

static void add_environment(struct argv *a, const struct jail *jail)
{
	const struct config *config = jail->config;

	argv_add(a, "--clearenv");
	argv_add_all(a, (const char *const[]){"--setenv", "PATH", "/usr/bin:/bin", "--setenv",
					      "HOME", "/tmp", NULL});
	if (getenv("PILLION_LOG"))
		argv_add_all(a, (const char *const[]){"--setenv", "PILLION_LOG",
						      getenv("PILLION_LOG"), NULL});
	if (jail->lib_dir)
		argv_add_all(a, (const char *const[]){"--setenv", "LD_LIBRARY_PATH", jail->lib_dir,
						      NULL});
	for (int i = 0; i < config->n_env; i++) {
		const char *value = strchr(config->env[i], '=');

		argv_add(a, "--setenv");
		argv_addf(a, "%.*s", (int)(value - config->env[i]), config->env[i]);
		argv_add(a, value + 1);
	}
}

/* Makes the folders above @path that are not there, open to all: bwrap's own would be for its user
 * alone, which is not the executor. */
static void add_parents(struct argv *a, const char *path)
{
	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		argv_add_all(a, (const char *const[]){"--perms", "0755", "--dir", NULL});
		argv_addf(a, "%.*s", (int)(slash - path), path);
	}
}

/* The parts of the host that its libraries live in; a merged /usr shows as links. */
static void add_host_root(struct argv *a, const char *lib_dir)
{
	static const char *const parts[] = {
		"/usr",
		"/bin",
		"/sbin",
		"/lib",
		"/lib32",
		"/lib64",
		"/opt",
		"/nix/store",
		"/gnu/store",
		"/run/opengl-driver",
		"/etc/OpenCL",
		"/etc/alternatives",
		"/etc/glvnd",
		"/etc/ld.so.cache",
		"/etc/ld.so.conf",
		"/etc/ld.so.conf.d",
		"/etc/nvidia",
		"/etc/vulkan",
	};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		char target[PATH_MAX];
		ssize_t n = readlink(parts[i], target, sizeof(target) - 1);

		if (n > 0) {
			target[n] = '\0';
			argv_add_all(a, (const char *const[]){"--symlink", target, parts[i], NULL});
		} else {
			if (path_exists(parts[i]))
				add_parents(a, parts[i]);
			argv_add_all(a, (const char *const[]){"--ro-bind-try", parts[i], parts[i],
							      NULL});
		}
	}
	add_parents(a, lib_dir);
	argv_add_all(a, (const char *const[]){"--ro-bind", lib_dir, lib_dir, NULL});
}

static void add_namespaces(struct argv *a)
{
	argv_add_all(a,
		     (const char *const[]){"bwrap", "--unshare-ipc", "--unshare-pid",
					   "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
					   "--hostname", "executor", "--new-session", "--as-pid-1",
					   "--cap-drop", "ALL", NULL});
	if (getuid())
		argv_add(a, "--unshare-user");
	else
		argv_add_all(a, (const char *const[]){"--cap-add", "CAP_SETUID", "--cap-add",
						      "CAP_SETGID", NULL});
}

static void add_folders(struct argv *a, const struct jail *jail)
{
	static const char *const writable[] = {"/tmp", "/dev/shm"};

	if (jail->root)
		argv_add_all(a, (const char *const[]){"--ro-bind", jail->root, "/", NULL});
	argv_add_all(a,
		     (const char *const[]){"--dev", "/dev", "--proc", "/proc", "--ro-bind", "/sys",
					   "/sys", "--perms", "0755", "--tmpfs", "/run", NULL});
	for (size_t i = 0; i < ARRAY_SIZE(writable); i++) {
		argv_add_all(a, (const char *const[]){"--perms", "1777", "--size", NULL});
		argv_addf(a, "%u", SCRATCH_BYTES);
		argv_add_all(a, (const char *const[]){"--tmpfs", writable[i], NULL});
	}
	if (!jail->root)
		add_host_root(a, jail->lib_dir);
	add_device_nodes(a);
	argv_add_all(a, (const char *const[]){"--ro-bind", jail->program, "/run/pillion-exec",
					      "--remount-ro", "/run", "--remount-ro", "/", NULL});
}

pid_t jail_spawn(const struct jail *jail, const char *const *args, const struct proc_opts *opts,
		 struct pil_err *err)
{
	_auto_fd int filter_fd = filter_create(err);
	_auto_argv struct argv a = {0};
	struct proc_opts with_filter = *opts;
	int keep[PIL_MAX_PASSED_FDS];
	pid_t pid;

	if (filter_fd < 0)
		return filter_fd;
	if (opts->n_keep_fds + 1 > PIL_MAX_PASSED_FDS)
		return pil_err_say(err, EINVAL, "start executor: too many descriptors");
	for (int i = 0; i < opts->n_keep_fds; i++)
		keep[i] = opts->keep_fds[i];
	keep[opts->n_keep_fds] = filter_fd;
	with_filter.keep_fds = keep;
	with_filter.n_keep_fds = opts->n_keep_fds + 1;

	add_namespaces(&a);
	add_folders(&a, jail);
	add_environment(&a, jail);
	argv_add(&a, "--seccomp");
	argv_addf(&a, "%d", filter_fd);
	argv_add_all(&a, (const char *const[]){"--", "/run/pillion-exec", NULL});
	if (getuid() == 0) {
		argv_add(&a, "--as");
		argv_addf(&a, "%u", JAIL_UID);
	}
	if (jail->lib_dir)
		argv_add_all(&a, (const char *const[]){"--lib-dir", jail->lib_dir, NULL});
	argv_add_all(&a, args);
	pid = proc_spawn(a.v, &with_filter, err);
	if (pid == -ENOENT)
		pil_err_hint(err, "apt install bubblewrap");
	return pid;
}

/* @pid is ours to reap, so the number is nobody else's; its child is the first process of a pid
 * namespace, and the kernel ends that with it. */
void jail_kill(pid_t pid)
{
	_auto_free char *path = str_printf("/proc/%d/task/%d/children", pid, pid);
	_auto_free char *text = NULL;
	long child;

	if (pid <= 0)
		return;
	child = pil_read_file(path, 64, &text) > 0 ? strtol(text, NULL, 10) : 0;
	if (child > 0)
		kill((pid_t)child, SIGKILL);
	kill(pid, SIGKILL);
}
