/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: an executor runs code of vendors on data of guests, so it is given nothing
 * but its device.  bubblewrap makes the jail: a read-only root (the runtime kit, or the host when
 * the user points at a ggml of the host), no network, its own pid, ipc, uts and user namespaces, no
 * capabilities, no_new_privs, and a seccomp filter.
 *
 * The filter names what is forbidden, not what is allowed: drivers and compilers of shaders inside
 * the vendors' libraries make system calls nobody can list in advance, and a list that breaks a
 * card is one people switch off.  Forbidden is what leads out of the jail or deeper into the
 * kernel: namespaces, mounts, modules, tracing, keys, bpf, handles, clocks, and any new socket but
 * AF_UNIX and netlink (which drivers use to hear about devices; there is no network to reach).
 *
 * The libraries of the kit are Debian's of today and need a C library as new; pillion-exec needs
 * libc alone and was built against an older one, so it runs there. */
#include "jail.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fd.h"
#include "path.h"
#include "str.h"

static const char *const forbidden[] = {
	"acct",
	"add_key",
	"adjtimex",
	"bpf",
	"chroot",
	"clock_adjtime",
	"clock_settime",
	"create_module",
	"delete_module",
	"fanotify_init",
	"finit_module",
	"fsconfig",
	"fsmount",
	"fsopen",
	"fspick",
	"init_module",
	"ioperm",
	"iopl",
	"kcmp",
	"kexec_file_load",
	"kexec_load",
	"keyctl",
	"lookup_dcookie",
	"mount",
	"mount_setattr",
	"move_mount",
	"nfsservctl",
	"open_by_handle_at",
	"open_tree",
	"perf_event_open",
	"personality",
	"pidfd_getfd",
	"pivot_root",
	"process_madvise",
	"process_vm_readv",
	"process_vm_writev",
	"ptrace",
	"quotactl",
	"reboot",
	"request_key",
	"setdomainname",
	"sethostname",
	"setns",
	"settimeofday",
	"swapoff",
	"swapon",
	"syslog",
	"umount2",
	"unshare",
	"uselib",
	"userfaultfd",
	"vhangup",
};

static int add_rules(scmp_filter_ctx filter)
{
	int ret = 0;

	for (size_t i = 0; i < ARRAY_SIZE(forbidden) && !ret; i++) {
		int nr = seccomp_syscall_resolve_name(forbidden[i]);

		if (nr != __NR_SCMP_ERROR)
			ret = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), nr, 0);
	}
	for (int family = 0; family < AF_MAX && !ret; family++)
		if (family != AF_UNIX && family != AF_NETLINK)
			ret = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAFNOSUPPORT),
					       SCMP_SYS(socket), 1,
					       SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family));
	return ret;
}

int jail_seccomp_fd(struct pil_err *err)
{
	_auto_fd int fd = memfd_create("seccomp", MFD_CLOEXEC);
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int ret;

	if (fd < 0 || !filter)
		ret = -(filter ? errno : ENOMEM);
	else
		ret = add_rules(filter);
	if (!ret)
		ret = seccomp_export_bpf(filter, fd);
	if (filter)
		seccomp_release(filter);
	if (!ret && lseek(fd, 0, SEEK_SET) < 0)
		ret = -errno;
	if (ret)
		return pil_err_set(err, -ret, "make the executor's seccomp filter");
	return pil_take_fd(&fd);
}

int jail_init(struct jail *jail, const struct state_dirs *dirs, const struct config *config,
	      struct pil_err *err)
{
	*jail = (struct jail){.config = config, .ggml_dir = config->ggml_dir};
	jail->program = state_find_program("exec", "pillion-exec");
	jail->root =
		config->ggml_dir ? strdup("/") : str_printf("%s/kits/runtime/rootfs", dirs->data);
	if (!jail->program) {
		jail_finish(jail);
		return pil_err_say(
			err, ENOENT,
			"start executor: pillion-exec is not beside this program nor in %s",
			PILLION_LIBEXEC);
	}
	if (!jail->root || !path_exists(jail->root)) {
		pil_err_hint(err, "run 'pillion --update' to make it");
		jail_finish(jail);
		return pil_err_say(err, ENOENT, "start executor: the runtime kit is not installed");
	}
	return 0;
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
	static const char *const patterns[] = {"/dev/dri",       "/dev/kfd",     "/dev/nvidia*",
					       "/dev/accel",     "/dev/dxg",     "/dev/davinci*",
					       "/dev/fastrpc-*", "/dev/dma_heap"};
	glob_t found = {0};

	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++)
		glob(patterns[i], i ? GLOB_APPEND : 0, NULL, &found);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		argv_add(a, "--dev-bind");
		argv_add(a, found.gl_pathv[i]);
		argv_add(a, found.gl_pathv[i]);
	}
	globfree(&found);
}

static void add_environment(struct argv *a, const struct config *config)
{
	argv_add(a, "--clearenv");
	argv_add_all(a, (const char *const[]){"--setenv", "PATH", "/usr/bin:/bin", "--setenv",
					      "HOME", "/tmp", NULL});
	if (getenv("PILLION_LOG"))
		argv_add_all(a, (const char *const[]){"--setenv", "PILLION_LOG",
						      getenv("PILLION_LOG"), NULL});
	for (int i = 0; i < config->n_env; i++) {
		const char *value = strchr(config->env[i], '=');

		argv_add(a, "--setenv");
		argv_addf(a, "%.*s", (int)(value - config->env[i]), config->env[i]);
		argv_add(a, value + 1);
	}
}

pid_t jail_spawn(const struct jail *jail, const char *const *args, const struct proc_opts *opts,
		 struct pil_err *err)
{
	_auto_fd int filter_fd = jail_seccomp_fd(err);
	_auto_argv struct argv a = {0};
	struct proc_opts with_filter = *opts;
	int keep[PIL_MAX_PASSED_FDS];

	if (filter_fd < 0)
		return filter_fd;
	if (opts->n_keep_fds + 1 > PIL_MAX_PASSED_FDS)
		return pil_err_say(err, EINVAL, "start executor: too many descriptors");
	for (int i = 0; i < opts->n_keep_fds; i++)
		keep[i] = opts->keep_fds[i];
	keep[opts->n_keep_fds] = filter_fd;
	with_filter.keep_fds = keep;
	with_filter.n_keep_fds = opts->n_keep_fds + 1;

	argv_add_all(&a, (const char *const[]){"bwrap",      "--unshare-all", "--unshare-user",
					       "--cap-drop", "ALL",           "--new-session",
					       "--as-pid-1", "--hostname",    "executor",
					       "--ro-bind",  jail->root,      "/",
					       "--dev",      "/dev",          "--proc",
					       "/proc",      "--ro-bind",     "/sys",
					       "/sys",       "--tmpfs",       "/tmp",
					       "--tmpfs",    "/run",          NULL});
	add_device_nodes(&a);
	argv_add_all(&a,
		     (const char *const[]){"--ro-bind", jail->program, "/run/pillion-exec", NULL});
	add_environment(&a, jail->config);
	argv_add(&a, "--seccomp");
	argv_addf(&a, "%d", filter_fd);
	argv_add_all(&a, (const char *const[]){"--", "/run/pillion-exec", NULL});
	if (jail->ggml_dir)
		argv_add_all(&a, (const char *const[]){"--ggml-dir", jail->ggml_dir, NULL});
	argv_add_all(&a, args);
	return proc_spawn(a.v, &with_filter, err);
}
