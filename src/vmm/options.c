/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of pillion-vmm's options, and opening the files they name.  All is opened before the
 * monitor jails itself. */
#include "vmm/options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "vmm/kvm_vm.h"
#include "vmm/trace.h"

enum {
	MAX_MEMORY_MIB = 1 << 24,
	MAX_FD = 1 << 20,
	LOCK_TRIES = 20,
	LOCK_WAIT_US = 50000,
};

static int bad(const char *option, const char *value, struct pil_err *err)
{
	return pil_err_say(err, EINVAL, "--%s: '%s' is not what it takes", option, value);
}

/* "FILE", "FILE,ro" */
static bool take_disk(struct options *o, char *value)
{
	char *comma = strrchr(value, ',');
	bool read_only = comma && !strcmp(comma, ",ro");

	if (o->n_disks == OPTIONS_MAX_DISKS)
		return false;
	if (read_only)
		*comma = '\0';
	o->disks[o->n_disks].path = value;
	o->disks[o->n_disks].fd = -1;
	o->disks[o->n_disks++].read_only = read_only;
	return true;
}

/* "FD:NAME" */
static bool take_disk_fd(struct options *o, char *value)
{
	char *colon = strchr(value, ':');
	uint64_t fd;

	if (o->n_disks == OPTIONS_MAX_DISKS || !colon)
		return false;
	*colon = '\0';
	if (!str_to_u64(value, MAX_FD, &fd) || fcntl((int)fd, F_SETFD, FD_CLOEXEC))
		return false;
	o->disks[o->n_disks].path = colon + 1;
	o->disks[o->n_disks++].fd = (int)fd;
	return true;
}

/* "TAG,SOCKET" */
static bool take_fs(struct options *o, char *value)
{
	char *comma = strchr(value, ',');

	if (o->n_fs == OPTIONS_MAX_FS || !comma || comma == value || comma[1] != '/')
		return false;
	*comma = '\0';
	o->fs[o->n_fs].tag = value;
	o->fs[o->n_fs++].socket = comma + 1;
	return true;
}

/* "FD:PORT" */
static bool take_listen(struct options *o, char *value)
{
	char *colon = strchr(value, ':');
	uint64_t fd, port;

	if (o->n_listens == OPTIONS_MAX_LISTENS || !colon)
		return false;
	*colon = '\0';
	if (!str_to_u64(value, MAX_FD, &fd) || !str_to_u64(colon + 1, UINT32_MAX - 1, &port))
		return false;
	o->listens[o->n_listens].fd = (int)fd;
	o->listens[o->n_listens++].port = (uint32_t)port;
	return true;
}

/* "PORT:PATH" */
static bool take_connect(struct options *o, char *value)
{
	char *colon = strchr(value, ':');
	uint64_t port;

	if (o->n_connects == OPTIONS_MAX_CONNECTS || !colon || colon[1] != '/')
		return false;
	*colon = '\0';
	if (!str_to_u64(value, UINT32_MAX - 1, &port))
		return false;
	o->connects[o->n_connects].port = (uint32_t)port;
	o->connects[o->n_connects++].path = colon + 1;
	return true;
}

static bool take_fd(int *fd, const char *value)
{
	uint64_t v;

	if (!str_to_u64(value, MAX_FD, &v) || fcntl((int)v, F_GETFD) < 0)
		return false;
	*fd = (int)v;
	return true;
}

static bool take_boot_timer(struct options *o, const char *value)
{
	uint64_t start_ns = 0;

	if (value && !str_to_u64(value, INT64_MAX, &start_ns))
		return false;
	o->boot_timer = true;
	trace_enable(start_ns);
	return true;
}

enum option_id {
	OPT_BOOT_TIMER = 1,
	OPT_CMDLINE,
	OPT_CONSOLE_EARLY,
	OPT_CONSOLE_FD,
	OPT_CPUS,
	OPT_DISK,
	OPT_DISK_FD,
	OPT_FS,
	OPT_INITRD,
	OPT_KEEP_MEMORY,
	OPT_KERNEL,
	OPT_MEMORY,
	OPT_NESTED,
	OPT_NET_CONTROL,
	OPT_NET_FD,
	OPT_NO_JAIL,
	OPT_REPORT_FD,
	OPT_VSOCK_CONNECT,
	OPT_VSOCK_LISTEN,
};

static const struct option table[] = {
	{"boot-timer", optional_argument, NULL, OPT_BOOT_TIMER},
	{"cmdline", required_argument, NULL, OPT_CMDLINE},
	{"console-early", no_argument, NULL, OPT_CONSOLE_EARLY},
	{"console-fd", required_argument, NULL, OPT_CONSOLE_FD},
	{"cpus", required_argument, NULL, OPT_CPUS},
	{"disk", required_argument, NULL, OPT_DISK},
	{"disk-fd", required_argument, NULL, OPT_DISK_FD},
	{"fs", required_argument, NULL, OPT_FS},
	{"initrd", required_argument, NULL, OPT_INITRD},
	{"keep-memory", no_argument, NULL, OPT_KEEP_MEMORY},
	{"kernel", required_argument, NULL, OPT_KERNEL},
	{"memory", required_argument, NULL, OPT_MEMORY},
	{"nested", no_argument, NULL, OPT_NESTED},
	{"net-control", required_argument, NULL, OPT_NET_CONTROL},
	{"net-fd", required_argument, NULL, OPT_NET_FD},
	{"no-jail", no_argument, NULL, OPT_NO_JAIL},
	{"report-fd", required_argument, NULL, OPT_REPORT_FD},
	{"vsock-connect", required_argument, NULL, OPT_VSOCK_CONNECT},
	{"vsock-listen", required_argument, NULL, OPT_VSOCK_LISTEN},
	{0},
};

static bool take(struct options *o, enum option_id id, char *value)
{
	uint64_t n;

	switch (id) {
	case OPT_BOOT_TIMER:
		return take_boot_timer(o, value);
	case OPT_CMDLINE:
		o->cmdline = value;
		return true;
	case OPT_CONSOLE_EARLY:
		o->early_fd = STDOUT_FILENO;
		return true;
	case OPT_CONSOLE_FD:
		return take_fd(&o->console_fd, value);
	case OPT_REPORT_FD:
		return take_fd(&o->report_fd, value);
	case OPT_CPUS:
		o->n_vcpus = str_to_u64(value, VM_MAX_VCPUS, &n) ? (unsigned)n : 0;
		return o->n_vcpus > 0;
	case OPT_DISK:
		return take_disk(o, value);
	case OPT_DISK_FD:
		return take_disk_fd(o, value);
	case OPT_FS:
		return take_fs(o, value);
	case OPT_INITRD:
		o->initrd = value;
		return true;
	case OPT_KERNEL:
		o->kernel = value;
		return true;
	case OPT_MEMORY:
		return str_to_u64(value, MAX_MEMORY_MIB, &o->memory_mib) && o->memory_mib >= 2;
	case OPT_KEEP_MEMORY:
		o->keep_memory = true;
		return true;
	case OPT_NESTED:
		o->nested = true;
		return true;
	case OPT_NET_CONTROL:
		return take_fd(&o->net_control_fd, value);
	case OPT_NET_FD:
		return take_fd(&o->net_fd, value);
	case OPT_NO_JAIL:
		o->jail = false;
		return true;
	case OPT_VSOCK_CONNECT:
		return take_connect(o, value);
	case OPT_VSOCK_LISTEN:
		return take_listen(o, value);
	}
	return false;
}

int options_parse(struct options *o, int argc, char **argv, struct pil_err *err)
{
	int c, at = 0;

	*o = (struct options){.cmdline = "",
			      .memory_mib = 512,
			      .n_vcpus = 1,
			      .net_fd = -1,
			      .net_control_fd = -1,
			      .console_fd = -1,
			      .early_fd = -1,
			      .report_fd = -1,
			      .jail = true,
			      .kvm_fd = -1,
			      .kernel_fd = -1,
			      .initrd_fd = -1};
	opterr = 0;
	while ((c = getopt_long(argc, argv, "", table, &at)) != -1) {
		if (c == '?')
			return pil_err_say(err, EINVAL,
					   "unknown option, or one without its value: "
					   "'%s'",
					   argv[optind - 1]);
		if (!take(o, (enum option_id)c, optarg))
			return bad(table[at].name, optarg ? optarg : "", err);
	}
	if (optind < argc)
		return pil_err_say(err, EINVAL, "what is '%s'", argv[optind]);
	if (!o->kernel)
		return pil_err_say(err, EINVAL, "--kernel is needed");
	return 0;
}

static int open_file(const char *what, const char *path, int flags, struct pil_err *err)
{
	int fd = open(path, flags | O_CLOEXEC);

	return fd < 0 ? pil_err_set(err, errno, "open %s '%s'", what, path) : fd;
}

static int open_disk(struct options *o, unsigned i, struct pil_err *err)
{
	bool read_only = o->disks[i].read_only;
	int fd = o->disks[i].fd;

	if (fd < 0)
		fd = open_file("disk", o->disks[i].path, read_only ? O_RDONLY : O_RDWR, err);
	if (fd < 0)
		return fd;
	o->disks[i].fd = fd;
	/* A machine that was killed a moment ago may not have let go yet. */
	for (int n = 0; n < LOCK_TRIES; n++) {
		if (!flock(fd, LOCK_NB | (read_only ? LOCK_SH : LOCK_EX)))
			return 0;
		if (errno == EWOULDBLOCK)
			usleep(LOCK_WAIT_US);
	}
	if (errno != EWOULDBLOCK)
		return pil_err_set(err, errno, "lock disk '%s'", o->disks[i].path);
	pil_err_hint(err,
		     "end the machine that uses it: pillion --list -v, pillion --terminate NAME");
	return pil_err_say(err, EBUSY, "disk '%s' is used by another machine", o->disks[i].path);
}

int options_open(struct options *o, struct pil_err *err)
{
	int ret = 0;

	o->kvm_fd = vm_open_kvm(err);
	if (o->kvm_fd < 0)
		return o->kvm_fd;
	o->kernel_fd = open_file("kernel", o->kernel, O_RDONLY, err);
	if (o->kernel_fd < 0)
		return o->kernel_fd;
	if (o->initrd)
		o->initrd_fd = open_file("initrd", o->initrd, O_RDONLY, err);
	if (o->initrd && o->initrd_fd < 0)
		return o->initrd_fd;
	for (unsigned i = 0; i < o->n_disks && !ret; i++)
		ret = open_disk(o, i, err);
	return ret;
}
