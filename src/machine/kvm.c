/* SPDX-License-Identifier: Apache-2.0
 *
 * The microVM: pillion-vmm with a kernel of its own, passt for its network.
 *
 * Theory of operation: the machine's disk is locked and looked at, kernel and initramfs are made
 * ready, and pillion-vmm is started with descriptors and paths of all it needs; it jails itself.
 * The disk's lock goes with its descriptor: from the first look on, nobody else has the disk until
 * pillion-vmm ends.  Our own lock (main.c) does not say so much: it lies in the runtime folder,
 * which another environment may name differently, and a log-out may remove.  The agent's
 * socket is accepted on by pillion-vmm, which carries each connection to the agent by vsock.
 *
 * The first thing pillion-init does is to connect to us (the life connection, agent.h): we tell it
 * who it is, it says when the agent serves, and the connection's end asks it to power off.  So the
 * protocol is that of the sandbox's pipes, over a stream.
 *
 * All processes end with us: SIGKILL when the supervisor dies.  What the guest had synced is on the
 * disk by then; its journal is replayed at the next start. */
#include "machine/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/exposed.h"
#include "agent/init_options.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/own_addrs.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/unixsock.h"
#include "disk/image.h"
#include "kit/kernel.h"
#include "machine/ending.h"
#include "machine/guest_files.h"
#include "machine/kvm_probe.h"
#include "machine/passt.h"
#include "machine/respawn.h"
#include "machine/said.h"
#include "machine/spec.h"
#include "machine/swap.h"
#include "machine/virtiofsd.h"

enum {
	READY_MS = 180000, /* an emulated processor may take most of it */
	POWER_OFF_MS = 20000,
	MIN_MEMORY_MIB = 128,
	LOG_MS = 100,          /* while it starts */
	CLOCK_TELL_MS = 60000, /* NTP moves the host's by up to 30 ms in that time */
	CLOCK_JUMP_MS = 200,
};

/* Quiet: what a kernel says at every boot is of no use; what it says when it fails is kept, by way
 * of the monitor's early UART before there is a console. */
#define KERNEL_COMMAND_LINE                                                                        \
	"console=hvc0 earlyprintk=serial,ttyS0,keep quiet panic=-1 8250.nr_uarts=0 "               \
	"random.trust_cpu=on"

enum part { PART_MONITOR, PART_GUEST, PART_NETWORK };

struct kvm {
	pid_t vmm, passt;
	int life_fd;
	int64_t clock_due_ms, clock_offset_ms; /* when the guest is told the time, or once this is
						* another: of the wall clock */
	bool clock_repeat;                     /* it has been told once; see host_clock.c */
	int net_control_fd; /* pillion-vmm takes new streams of the network there; -1: no card */
	struct said said[BACKEND_MAX_SAID]; /* what parts print, by enum part */
	int say_fd;                         /* the end that passt gets; -1: no network */
	struct respawn passt_again;
	bool has_swap;        /* its second disk */
	struct own_addrs own; /* as pillion-vmm knows them */
	bool map_loopback;    /* the gateway's address is the host's loopback */
	struct fs_share shares[SPEC_MAX_SHARES];
	const struct machine_spec *spec; /* the supervisor's */
};

static bool usable(const struct state_dirs *dirs, char *why, int why_size)
{
	struct kvm_verdict verdict;

	kvm_probe(dirs, &verdict);
	snprintf(why, (size_t)why_size, "%s", verdict.why);
	return verdict.state == KVM_USABLE;
}

/* ---- how large ---- */

static uint64_t host_memory_mib(void)
{
	struct sysinfo info;

	return sysinfo(&info) ? 1024 : (uint64_t)info.totalram * info.mem_unit >> 20;
}

static int memory_mib(const struct machine_spec *spec, uint64_t *out, struct pil_err *err)
{
	uint64_t host = host_memory_mib();

	*out = spec->memory_bytes ? (uint64_t)spec->memory_bytes >> 20 : host / 2;
	if (*out >= MIN_MEMORY_MIB && *out <= host)
		return 0;
	pil_err_hint(err, "memory = in the config sets it");
	return pil_err_say(err, ENOMEM,
			   "a microVM of %llu MiB: the host has %llu, and %d are needed",
			   (unsigned long long)*out, (unsigned long long)host, MIN_MEMORY_MIB);
}

static unsigned n_processors(const struct backend_run *run)
{
	unsigned wanted = (unsigned)run->spec->processors, n;
	struct kvm_verdict verdict;

	kvm_probe(run->dirs, &verdict);
	n = kvm_probe_processors(wanted, sysconf(_SC_NPROCESSORS_ONLN), verdict.max_processors);
	if (wanted > n)
		log_warn("processors = %u in the config: a microVM has at most %u here", wanted, n);
	return n;
}

/* ---- the life connection ---- */

/* As agent.h has it: how many bytes, and the strings of @a, each with its NUL. */
static int send_strings(int fd, const struct argv *a)
{
	struct iovec iov[2] = {{.iov_len = sizeof(uint32_t)}};
	_auto_free char *text = NULL;
	uint32_t len = 0;
	char *end;

	for (size_t i = 0; i < a->n; i++)
		len += (uint32_t)strlen(a->v[i]) + 1;
	end = text = malloc(len + 1);
	if (!text)
		return -ENOMEM;
	for (size_t i = 0; i < a->n; i++)
		end = stpcpy(end, a->v[i]) + 1;
	iov[0].iov_base = &len;
	iov[1] = (struct iovec){text, len};
	return pil_sendv_all(fd, iov, 2);
}

/* Tells pillion-init what is on its command line in a sandbox. */
static int send_options(int fd, const struct kvm *kvm, const struct backend_run *run)
{
	const struct machine_spec *spec = run->spec;
	_auto_free char *net =
		str_printf("%s/%d,%s,%d", PASST_ADDRESS, PASST_PREFIX, PASST_GATEWAY, PASST_MTU);
	_auto_argv struct argv a = {0};
	_auto_argv struct argv mounts = {0};
	_auto_free char *resolv = NULL;
	struct init_options o;
	bool forward;

	spec_init_options(spec, &o);
	resolv = guest_files_resolv_conf(&kvm->own, PASST_DNS, &forward);
	o.resolv_conf = resolv;
	o.net = spec->network ? net : NULL;
	o.token = run->token;
	o.swap = kvm->has_swap;
	o.reclaim = spec->reclaim;
	o.forward = run->forward_fd >= 0;
	for (int i = 0; i < spec->n_shares; i++) {
		const struct machine_share *share = &spec->shares[i];

		if (!kvm->shares[i].socket)
			continue;
		argv_addf(&mounts, "%s:%s%s", kvm->shares[i].tag, share->guest,
			  share->writable ? "" : ":ro");
		o.mounts[mounts.n - 1] = mounts.v[mounts.n - 1];
	}
	init_options_add(&a, &o);
	return send_strings(fd, &a);
}

/* Waits until the guest calls; returns its connection.  Its monitor's end ends the waiting.  What
 * they print meanwhile goes to the log. */
static int await_guest(struct kvm *kvm, int listen_fd, int ended_fd, int64_t due_ms,
		       struct pil_err *err)
{
	struct pollfd p[] = {{.fd = listen_fd, .events = POLLIN},
			     {.fd = ended_fd, .events = POLLIN}};
	int fd, n;

	do {
		int left_ms = loop_left_ms(due_ms);

		n = poll(p, 2, left_ms < LOG_MS ? left_ms : LOG_MS);
		said_pass_on(&kvm->said[PART_MONITOR]);
		said_pass_on(&kvm->said[PART_GUEST]);
	} while (n == 0 && loop_left_ms(due_ms));
	if (n <= 0)
		return pil_err_say(err, ETIMEDOUT, "the guest does not answer after %d s",
				   READY_MS / 1000);
	if (p[1].revents)
		return pil_err_say(err, EIO, "the microVM ended while starting");
	fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	return fd < 0 ? pil_err_set(err, errno, "accept the guest's connection") : fd;
}

/* ---- the command line of pillion-vmm ---- */

struct start { /* what start() gathers */
	struct kernel kernel;
	char *program, *disk, *life_path, *broker_path;
	uint64_t memory_mib;
	int64_t begin_ns; /* for the boot timer; 0: nobody asks for it */
	int disk_fd, swap_fd, life_listen_fd, card_fd, control_fd;
	int say_fd, console_fd; /* pillion-vmm's ends */
};

static void start_finish(struct start *s)
{
	kernel_finish(&s->kernel);
	free(s->program);
	free(s->disk);
	free(s->life_path);
	free(s->broker_path);
	pil_close_p(&s->disk_fd);
	pil_close_p(&s->swap_fd);
	pil_close_p(&s->life_listen_fd);
	pil_close_p(&s->card_fd);
	pil_close_p(&s->control_fd);
	pil_close_p(&s->say_fd);
	pil_close_p(&s->console_fd);
}

static void build_command(struct argv *a, const struct start *s, const struct kvm *kvm,
			  const struct backend_run *run)
{
	const struct machine_spec *spec = run->spec;

	argv_add_all(a, (const char *const[]){s->program, "--kernel", s->kernel.vmlinux, "--initrd",
					      s->kernel.initramfs, "--cmdline", NULL});
	argv_addf(a, "%s%s%s", KERNEL_COMMAND_LINE, spec->kernel_options ? " " : "",
		  spec->kernel_options ? spec->kernel_options : "");
	argv_add(a, "--memory");
	argv_addf(a, "%llu", (unsigned long long)s->memory_mib);
	argv_add(a, "--cpus");
	argv_addf(a, "%u", n_processors(run));
	argv_add(a, "--disk-fd");
	argv_addf(a, "%d:%s", s->disk_fd, s->disk);
	if (s->swap_fd >= 0) {
		argv_add(a, "--disk-fd");
		argv_addf(a, "%d:swap of %s", s->swap_fd, run->spec->name);
	}
	for (int i = 0; i < run->spec->n_shares; i++) {
		if (!kvm->shares[i].socket)
			continue;
		argv_add(a, "--fs");
		argv_addf(a, "%s,%s", kvm->shares[i].tag, kvm->shares[i].socket);
	}
	if (s->card_fd >= 0) {
		argv_add(a, "--net-fd");
		argv_addf(a, "%d", s->card_fd);
		argv_add(a, "--net-control");
		argv_addf(a, "%d", s->control_fd);
	}
	argv_add(a, "--vsock-listen");
	argv_addf(a, "%d:%d", run->listen_fd, AGENT_VSOCK_PORT);
	if (run->forward_fd >= 0) {
		argv_add(a, "--vsock-listen");
		argv_addf(a, "%d:%d", run->forward_fd, FORWARD_VSOCK_PORT);
	}
	argv_add(a, "--vsock-connect");
	argv_addf(a, "%d:%s", LIFE_VSOCK_PORT, s->life_path);
	if (run->token) {
		argv_add(a, "--vsock-connect");
		argv_addf(a, "%d:%s", BROKER_VSOCK_PORT, s->broker_path);
	}
	argv_add(a, "--console-fd");
	argv_addf(a, "%d", s->console_fd);
	argv_add(a, "--report-fd");
	argv_addf(a, "%d", run->report_fd);
	if (s->begin_ns)
		argv_addf(a, "--boot-timer=%lld", (long long)s->begin_ns);
	if (spec->nested)
		argv_add(a, "--nested");
	if (spec->reclaim == INIT_RECLAIM_DISABLED)
		argv_add(a, "--keep-memory");
}

static pid_t spawn_vmm(const struct start *s, const struct kvm *kvm, const struct backend_run *run,
		       struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	int keep[8], n_keep = 0;
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = s->say_fd,
				 .stderr_fd = s->say_fd,
				 .keep_fds = keep,
				 .new_session = true,
				 .die_with_us = true};

	keep[n_keep++] = s->disk_fd;
	if (s->swap_fd >= 0)
		keep[n_keep++] = s->swap_fd;
	keep[n_keep++] = run->listen_fd;
	if (run->forward_fd >= 0)
		keep[n_keep++] = run->forward_fd;
	if (s->card_fd >= 0) {
		keep[n_keep++] = s->card_fd;
		keep[n_keep++] = s->control_fd;
	}
	keep[n_keep++] = s->console_fd;
	keep[n_keep++] = run->report_fd;
	opts.n_keep_fds = n_keep;
	build_command(&a, s, kvm, run);
	return proc_spawn(a.v, &opts, err);
}

/* ---- start and stop ---- */

/* The forwarder has a duplicate of the life connection: closing ours would not end it. */
static void ask_to_end(void *state)
{
	struct kvm *kvm = state;

	if (kvm->life_fd >= 0)
		shutdown(kvm->life_fd, SHUT_RDWR);
	pil_close_p(&kvm->life_fd);
}

static void stop(void *state, int grace_ms)
{
	struct kvm *kvm = state;

	ask_to_end(kvm);
	pil_close_p(&kvm->net_control_fd);
	if (kvm->vmm > 0)
		proc_stop(kvm->vmm, grace_ms);
	said_finish(&kvm->said[PART_GUEST]);
	said_finish(&kvm->said[PART_MONITOR]); /* why it ended: a command line looks for it */
	if (kvm->passt > 0)
		proc_stop(kvm->passt, grace_ms);
	said_finish(&kvm->said[PART_NETWORK]);
	pil_close_p(&kvm->say_fd);
	for (int i = 0; i < SPEC_MAX_SHARES; i++)
		virtiofsd_stop(&kvm->shares[i]);
	free(kvm);
}

static int prepare(struct start *s, const struct backend_run *run, struct pil_err *err)
{
	struct guest_files files;
	struct initramfs_file in_initramfs[EXPOSED_NUM + 2] = {0};
	int ret = guest_files_find(&files, err);

	if (ret)
		return ret;
	in_initramfs[0] = (struct initramfs_file){files.init, "init", 0755};
	for (int i = 0; i < EXPOSED_NUM; i++) /* a path without its first slash */
		in_initramfs[i + 1] =
			(struct initramfs_file){files.plugins[i], exposed[i].place + 1, 0644};
	s->program = state_find_program("vmm", "pillion-vmm", err);
	s->disk = strdup(run->spec->disk);
	s->life_path = str_printf("%s/vm/life.sock", run->dir);
	s->broker_path = str_printf("%s/guest/broker.sock", run->dir);
	ret = s->program ? 0 : -ENOENT;
	if (!ret)
		ret = memory_mib(run->spec, &s->memory_mib, err);
	if (!ret) {
		s->disk_fd = image_open(run->spec->disk, err);
		ret = s->disk_fd < 0 ? s->disk_fd : 0;
	}
	if (!ret)
		ret = kernel_prepare(run->dirs, run->spec->kernel, in_initramfs, &s->kernel, err);
	guest_files_finish(&files);
	return ret;
}

/* A quarter of the memory, unless the config says otherwise. */
static int make_swap(struct kvm *kvm, struct start *s, const struct backend_run *run,
		     struct pil_err *err)
{
	int64_t wanted = run->spec->swap_bytes;
	uint64_t bytes = wanted < 0 ? s->memory_mib << 18 : (uint64_t)wanted;
	_auto_free char *folder =
		str_printf("%.*s", (int)(strrchr(run->spec->disk, '/') - run->spec->disk),
			   run->spec->disk);

	if (bytes == 0)
		return 0;
	s->swap_fd = swap_create(folder[0] ? folder : "/", bytes, err);
	kvm->has_swap = s->swap_fd >= 0;
	return kvm->has_swap ? 0 : s->swap_fd;
}

static int make_sockets(struct start *s, const struct backend_run *run, struct pil_err *err)
{
	_auto_free char *folder = str_printf("%s/vm", run->dir);
	int ret = path_mkdirs(folder, 0700);

	if (ret)
		return pil_err_set(err, -ret, "make folder '%s'", folder);
	s->life_listen_fd = unixsock_listen(s->life_path, 1, err);
	return s->life_listen_fd < 0 ? s->life_listen_fd : 0;
}

/* pillion-vmm keeps the guest from the host's own addresses. */
static void tell_own_addrs(struct kvm *kvm)
{
	struct own_addrs addrs;

	if (!own_addrs_refresh(&kvm->own, &addrs))
		return;
	if (send(kvm->net_control_fd, &addrs, sizeof(addrs), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_warn("network: tell pillion-vmm the host's addresses: %s", strerror(errno));
	else
		kvm->own = addrs;
}

/* No network is not worth refusing the machine, as in the sandbox. */
static void attach_network(struct kvm *kvm, struct start *s)
{
	struct pil_err err = {0};
	int pair[2];

	if (said_open(&kvm->said[PART_NETWORK], "passt", &kvm->say_fd, &err)) {
		log_warn("network: %s", err.msg);
		return;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		log_warn("network: %s", strerror(errno));
		return;
	}
	kvm->net_control_fd = pair[0];
	s->control_fd = pair[1];
	tell_own_addrs(kvm);
	kvm->passt = passt_start(kvm->map_loopback, kvm->say_fd, &s->card_fd, &err);
	if (kvm->passt < 0) {
		log_warn("network: %s", err.msg);
		kvm->passt = 0;
		pil_close_p(&kvm->net_control_fd);
	}
}

static void tend_network(struct kvm *kvm)
{
	struct pil_err err = {0};
	_auto_fd int card_fd = -1;
	int ret;

	if (kvm->net_control_fd < 0)
		return;
	tell_own_addrs(kvm);
	if (kvm->passt > 0 && proc_wait(kvm->passt, 0) == -ETIMEDOUT)
		return;
	kvm->passt = 0;
	if (!respawn_due(&kvm->passt_again, clock_now_ms()))
		return;
	log_warn("passt ended; starting another");
	kvm->passt = passt_start(kvm->map_loopback, kvm->say_fd, &card_fd, &err);
	ret = kvm->passt < 0 ? kvm->passt : pil_send_fds(kvm->net_control_fd, "n", 1, &card_fd, 1);
	if (ret < 0)
		log_warn("network: %s", kvm->passt < 0 ? err.msg : strerror(-ret));
	if (kvm->passt < 0)
		kvm->passt = 0;
}

/* A shared folder costs the machine a virtiofsd: without models there is nothing to see. */
static bool is_worth_sharing(const struct machine_share *share)
{
	return share->needed || path_has_entries(share->host);
}

/* As with the network: a folder that cannot be had is said, and missed, unless it is needed. */
static int serve_folders(struct kvm *kvm, const struct backend_run *run, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/vm", run->dir);

	kvm->spec = run->spec;
	for (int i = 0; i < run->spec->n_shares; i++) {
		const struct machine_share *share = &run->spec->shares[i];
		struct pil_err own = {0};

		if (!is_worth_sharing(share) ||
		    virtiofsd_start(&kvm->shares[i], share, i, dir, &own) == 0)
			continue;
		if (share->needed) {
			*err = own;
			return -err->code;
		}
		log_warn("%s", own.msg);
	}
	return 0;
}

static int64_t wall_clock_ns(void)
{
	struct timespec ts = {0};

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Its clock drifts, and does not know of ours being set, or standing still while we are suspended.
 * A guest that does not read misses it. */
static void tell_time(struct kvm *kvm)
{
	int64_t now_ns = wall_clock_ns(), now_ms = clock_now_ms();
	int64_t offset_ms = now_ns / 1000000 - now_ms;

	if (llabs(offset_ms - kvm->clock_offset_ms) >= CLOCK_JUMP_MS)
		kvm->clock_repeat = false;
	else if (now_ms < kvm->clock_due_ms)
		return;
	kvm->clock_due_ms = kvm->clock_repeat ? now_ms + CLOCK_TELL_MS : now_ms;
	kvm->clock_repeat = !kvm->clock_repeat;
	kvm->clock_offset_ms = offset_ms;
	if (send(kvm->life_fd, &now_ns, sizeof(now_ns), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_dbg("tell the guest the time: %s", strerror(errno));
}

static void tend(void *state)
{
	struct kvm *kvm = state;

	tell_time(kvm);
	tend_network(kvm);
	for (int i = 0; i < kvm->spec->n_shares; i++)
		virtiofsd_tend(&kvm->shares[i], &kvm->spec->shares[i]);
}

static struct said *said(void *state, int i)
{
	return &((struct kvm *)state)->said[i];
}

/* A guest without drivers ends without a word of what it lacks. */
static void explain_kernel(const struct kernel *kernel, struct pil_err *err)
{
	_auto_free char *said = kernel->mismatch ? strdup(err->msg) : NULL;

	if (!said)
		return;
	pil_err_say(err, err->code, "%s (%s)", said, kernel->mismatch);
	pil_err_hint(err, "such a kernel must have built in (=y): PVH, EXT4_FS, VIRTIO_PCI, "
			  "VIRTIO_BLK, VIRTIO_NET, VIRTIO_CONSOLE, VIRTIO_VSOCKETS, VIRTIO_FS; or "
			  "kernel = trixie, bookworm, sid");
}

static int boot(struct kvm *kvm, struct start *s, const struct backend_run *run, int *ready_fd,
		struct pil_err *err)
{
	_auto_fd int ended_fd = -1;
	int ret;

	kvm->vmm = spawn_vmm(s, kvm, run, err);
	if (kvm->vmm < 0)
		return kvm->vmm;
	ended_fd = (int)syscall(SYS_pidfd_open, kvm->vmm, 0);
	if (ended_fd < 0)
		return pil_err_set(err, errno, "watch pillion-vmm");
	kvm->life_fd = await_guest(kvm, s->life_listen_fd, ended_fd, run->due_ms, err);
	if (kvm->life_fd < 0) {
		ending_explain(run->dirs, run->spec->name, false, err);
		explain_kernel(&s->kernel, err);
		return kvm->life_fd;
	}
	ret = send_options(kvm->life_fd, kvm, run);
	if (ret)
		return pil_err_set(err, -ret, "tell the guest its options");
	*ready_fd = dup(kvm->life_fd);
	return pil_take_fd(&ended_fd);
}

static int start(void **state, const struct backend_run *run, int *ready_fd, struct pil_err *err)
{
	struct kvm *kvm = calloc(1, sizeof(*kvm));
	struct start s = {.disk_fd = -1,
			  .swap_fd = -1,
			  .life_listen_fd = -1,
			  .card_fd = -1,
			  .control_fd = -1,
			  .say_fd = -1,
			  .console_fd = -1};
	int ret;

	if (!kvm)
		return pil_err_set(err, ENOMEM, "start a microVM");
	if (getenv("PILLION_BOOT_TIMER"))
		s.begin_ns = clock_now_ms() * 1000000;
	kvm->life_fd = kvm->net_control_fd = kvm->say_fd = -1;
	for (int i = 0; i < BACKEND_MAX_SAID; i++)
		kvm->said[i].read_fd = -1;
	kvm->map_loopback = run->spec->host_loopback;
	kvm->own.closed = kvm->map_loopback ? OWN_ADDRS_OPEN : OWN_ADDRS_UNREAD;
	ret = prepare(&s, run, err);
	if (!ret)
		ret = make_swap(kvm, &s, run, err);
	if (!ret)
		ret = make_sockets(&s, run, err);
	if (!ret)
		ret = said_open(&kvm->said[PART_MONITOR], "microVM", &s.say_fd, err);
	if (!ret)
		ret = said_open(&kvm->said[PART_GUEST], "guest", &s.console_fd, err);
	if (!ret) {
		if (run->spec->network)
			attach_network(kvm, &s);
		ret = serve_folders(kvm, run, err);
	}
	if (!ret)
		ret = boot(kvm, &s, run, ready_fd, err);
	if (ret >= 0 && s.kernel.mismatch)
		log_info("kernel: %s", s.kernel.mismatch);
	start_finish(&s); /* disk and swap are pillion-vmm's alone now */
	if (ret < 0) {
		if (kvm->vmm > 0) /* it may not have got so far that it would listen to us */
			proc_stop(kvm->vmm, 0);
		kvm->vmm = 0;
		stop(kvm, 0);
		return ret;
	}
	*state = kvm;
	return ret;
}

extern const struct backend backend_kvm;
const struct backend backend_kvm = {.name = "kvm",
				    .title = "microVM",
				    .version = 2,
				    .ready_ms = READY_MS,
				    .usable = usable,
				    .start = start,
				    .tend = tend,
				    .polite_ms = POWER_OFF_MS,
				    .ask_to_end = ask_to_end,
				    .said = said,
				    .stop = stop};
