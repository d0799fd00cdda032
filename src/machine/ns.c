/* SPDX-License-Identifier: Apache-2.0
 *
 * The sandbox: namespaces of our own making, with pasta for the network.
 *
 * Theory of operation: four processes.  The outer one is the first process of a pid namespace, in
 * the user namespace that owns the distro's tree, and waits for its child.  The child makes the
 * mounts (room.c) and becomes pillion-init, pid 1 of a pid namespace of its own.  pillion-init
 * enters one more user namespace with a network and a copy of the mounts, which are locked by that
 * (src/guest/init/confine.c), says so, and waits until `pasta` is attached to its network.  pasta
 * runs in the user namespace of the outer process: it is nobody on the host, and out of reach of
 * the guest's root.
 *
 * All of them end with us: the outer process and pasta get SIGKILL when the supervisor dies, and
 * the kernel ends a pid namespace with its first process.  The polite way is the life pipe: closing
 * our end makes pillion-init end everything and exit.
 *
 * Isolation is that of a container: shared kernel, user namespace (nothing in the machine is root
 * outside), no access to the host's files but the shares, no host network but what pasta forwards
 * from inside (tap.c keeps it from the host's own loopback, unless hostAddressLoopback says so). */
#include "machine/backend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include "agent/exposed.h"
#include "agent/init_options.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/own_addrs.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "machine/bindfs.h"
#include "machine/calls.h"
#include "machine/cgroup.h"
#include "machine/guest_files.h"
#include "machine/kernel_files.h"
#include "machine/respawn.h"
#include "machine/room.h"
#include "machine/said.h"
#include "machine/shares.h"
#include "machine/spec.h"
#include "machine/tap.h"
#include "port/userns.h"

#define DNS_FORWARD                                                                                \
	"10.255.255.254" /* as WSL's DNS tunnel; used where the host's resolver is on loopback */

struct ns {
	pid_t outer, pasta; /* pasta: 0 when it has ended */
	struct respawn pasta_again;
	pid_t init;           /* as seen from here */
	bool dns_forward;     /* pasta forwards name queries */
	bool no_network;      /* none is wanted */
	bool map_loopback;    /* the gateway's address is the host's loopback */
	struct own_addrs own; /* that its card keeps it from */
	int card_fd;          /* the card's other end, which pasta has too; -1: none */
	int life_fd;          /* closing it ends the machine */
	struct said said;     /* what pillion-init and pasta print */
	int say_fd;           /* the end that they get */
	struct room room;
	const char *tree; /* while it starts */
	bool filter;      /* of system calls */
	struct bindfs bindfs;
	struct cgroup group;
};

static bool usable(const struct state_dirs *dirs, char *why, int why_size)
{
	(void)dirs;
	if (!proc_have("bwrap") || !proc_have("pasta")) {
		snprintf(why, (size_t)why_size,
			 "bubblewrap or pasta is missing: sudo apt install bubblewrap passt");
		return false;
	}
	snprintf(why, (size_t)why_size, "bubblewrap and pasta are installed");
	return true;
}

/* ---- what it sees of files ---- */

static void add_guest_files(struct room *room, struct userns_stage *stage,
			    const struct guest_files *files)
{
	room_add(room, ROOM_TMPFS, NULL, EXPOSED_DIR, 0755);
	room_add(room, ROOM_DIR, NULL, EXPOSED_LIB, 0755);
	room_add(room, ROOM_DIR, NULL, EXPOSED_BIN, 0755);
	room_add(room, ROOM_SHOW, userns_stage_add(stage, files->init), EXPOSED_INIT, S_IFREG);
	for (int i = 0; i < EXPOSED_NUM; i++)
		if (files->plugins[i])
			room_add(room, ROOM_SHOW, userns_stage_add(stage, files->plugins[i]),
				 exposed[i].place, S_IFREG);
	room_add(room, ROOM_SEAL, NULL, EXPOSED_DIR, 0);
	room_add(room, ROOM_TMPFS, NULL, EXPOSED_WSL, 0755);
	room_add(room, ROOM_LINK, EXPOSED_LIB, EXPOSED_WSL_LIB, 0);
}

/* What userns_stage_add() is called for: tree, guest folder, pillion-init, plugins, shares. */
static_assert(3 + EXPOSED_NUM + SPEC_MAX_SHARES < USERNS_MAX_STAGES, "userns_stage_add() aborts");

static void add_share(struct room *room, struct userns_stage *stage, struct bindfs *bindfs,
		      const struct machine_share *share)
{
	const char *source = share->direct ? userns_stage_add(stage, share->host)
					   : bindfs_add(bindfs, stage, share);

	room_add(room, share->writable ? ROOM_BIND : ROOM_SHOW, source, share->guest, S_IFDIR);
}

static void add_shares(struct room *room, struct userns_stage *stage, struct bindfs *bindfs,
		       const struct machine_spec *spec)
{
	bool folders = false;

	for (int i = 0; i < spec->n_shares; i++) {
		const struct machine_share *share = &spec->shares[i];

		if (!folders && !strncmp(share->guest, EXPOSED_HOST_FOLDERS "/",
					 strlen(EXPOSED_HOST_FOLDERS) + 1)) {
			room_add(room, ROOM_TMPFS, NULL, EXPOSED_HOST_FOLDERS, 0755);
			folders = true;
		}
		if (path_exists(share->host))
			add_share(room, stage, bindfs, share);
	}
	if (folders)
		room_add(room, ROOM_SEAL, NULL, EXPOSED_HOST_FOLDERS, 0);
}

struct start_fds {
	int life, ready, entered, go; /* the children's ends */
};

static void add_init(struct argv *a, const struct backend_run *run, const struct start_fds *fds,
		     struct ns *ns)
{
	_auto_free char *resolv = guest_files_resolv_conf(&ns->own, DNS_FORWARD, &ns->dns_forward);
	struct init_options o;

	spec_init_options(run->spec, &o);
	o.resolv_conf = resolv;
	o.listen_fd = run->listen_fd;
	o.forward_fd = run->forward_fd;
	o.life_fd = fds->life;
	o.ready_fd = fds->ready;
	o.entered_fd = fds->entered;
	o.go_fd = fds->go;
	argv_add_all(a, (const char *const[]){EXPOSED_INIT, NULL});
	init_options_add(a, &o);
}

static void furnish(struct ns *ns, struct userns_stage *stage, const struct backend_run *run,
		    const struct guest_files *files, const char *guest_dir)
{
	kernel_files_add(&ns->room);
	if (run->token) { /* how programs of every user reach the host's devices */
		_auto_free char *token = str_printf("%s\n", run->token);

		room_add(&ns->room, ROOM_SHOW, userns_stage_add(stage, guest_dir), EXPOSED_HOST,
			 S_IFDIR);
		room_add(&ns->room, ROOM_TEXT, token, EXPOSED_TOKEN, 0444);
	}
	add_guest_files(&ns->room, stage, files);
	add_shares(&ns->room, stage, &ns->bindfs, run->spec);
}

/* ---- network ---- */

/* pillion-init writes to @entered_fd once it has its namespaces.  Its pid as seen from here: that
 * of the outer process's only child.  0: not there in time. */
static pid_t await_init(pid_t outer, int entered_fd)
{
	_auto_free char *path = str_printf("/proc/%d/task/%d/children", outer, outer);
	_auto_free char *pids = NULL;
	struct pollfd p = {.fd = entered_fd, .events = POLLIN};
	char c;

	if (poll(&p, 1, 10000) <= 0 || read(entered_fd, &c, 1) != 1 ||
	    pil_read_file(path, 64, &pids) < 0)
		return 0;
	return (pid_t)strtol(pids, NULL, 10);
}

/* The default route is the last thing pasta sets up. */
static bool network_up(pid_t child)
{
	_auto_free char *path = str_printf("/proc/%d/net/route", child);
	_auto_free char *path6 = str_printf("/proc/%d/net/ipv6_route", child);
	_auto_free char *text = NULL;
	_auto_free char *text6 = NULL;

	if (pil_read_file(path, 1 << 16, &text) > 0 && strstr(text, "\t00000000\t"))
		return true;
	return pil_read_file(path6, 1 << 16, &text6) > 0 &&
	       strstr(text6, "00000000000000000000000000000000 00 ") && strstr(text6, "eth");
}

/* No network is not worth refusing the machine: it is said, and the machine starts without. */
static void attach_network(struct ns *ns)
{
	_auto_free char *ns_path = str_printf("/proc/%d/ns/net", ns->init);
	_auto_fd int net_fd = open(ns_path, O_RDONLY | O_CLOEXEC);
	_auto_argv struct argv a = {0};
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = ns->say_fd,
				 .stderr_fd = ns->say_fd,
				 .keep_fds = &net_fd,
				 .n_keep_fds = 1,
				 .die_with_us = true};
	struct pil_err err = {0};
	int64_t due = loop_now_ms() + 3000;

	if (net_fd < 0) {
		log_warn("network: open %s: %s", ns_path, strerror(errno));
		return;
	}
	argv_add_all(&a, (const char *const[]){"pasta", "-f", "-q", "--config-net", "--netns-only",
					       "-t", "none", "-u", "none", "-T", "none", "-U",
					       "none", "-I", TAP_NAME, NULL});
	if (!ns->map_loopback)
		argv_add(&a, "--no-map-gw");
	if (ns->dns_forward)
		argv_add_all(&a, (const char *const[]){"--dns-forward", DNS_FORWARD, NULL});
	argv_add(&a, "--netns");
	argv_addf(&a, "/proc/self/fd/%d", net_fd);
	ns->pasta = tap_spawn_pasta(ns->outer, net_fd, &ns->own, a.v, &opts, &ns->card_fd, &err);
	if (ns->pasta < 0) {
		log_warn("network: %s", err.msg);
		ns->pasta = 0;
		return;
	}
	while (!network_up(ns->init)) {
		if (proc_wait(ns->pasta, 0) != -ETIMEDOUT) {
			log_warn("network: pasta ended at once; the machine has no network");
			ns->pasta = 0;
			return;
		}
		if (loop_now_ms() > due) {
			log_warn("network: no route after 3 s; does the host have one?");
			return;
		}
		poll(NULL, 0, 1);
	}
}

static void refresh_own_addrs(struct ns *ns)
{
	struct own_addrs now;
	int ret;

	if (ns->no_network || !own_addrs_refresh(&ns->own, &now))
		return;
	ret = ns->card_fd < 0 ? 0 : tap_keep_from(ns->card_fd, &now);
	if (ret)
		log_warn("network: keep the sandbox from the host's addresses: %s", strerror(-ret));
	else
		ns->own = now;
}

static void tend(void *state)
{
	struct ns *ns = state;

	bindfs_tend(&ns->bindfs);
	refresh_own_addrs(ns);
	if (ns->no_network || (ns->pasta > 0 && proc_wait(ns->pasta, 0) == -ETIMEDOUT))
		return;
	ns->pasta = 0;
	pil_close_p(&ns->card_fd); /* with which the card goes */
	if (!respawn_due(&ns->pasta_again, loop_now_ms()))
		return;
	log_warn("network: pasta ended; starting another");
	attach_network(ns);
}

static struct said *said(void *state, int i)
{
	return i ? NULL : &((struct ns *)state)->said;
}

/* ---- start and stop ---- */

static void ask_to_end(void *state)
{
	pil_close_p(&((struct ns *)state)->life_fd);
}

static void stop(void *state, int grace_ms)
{
	struct ns *ns = state;

	ask_to_end(ns);
	if (ns->outer > 0)
		proc_stop(ns->outer, 0);
	bindfs_stop(&ns->bindfs);
	cgroup_remove(&ns->group);
	if (ns->pasta > 0)
		proc_stop(ns->pasta, grace_ms);
	said_finish(&ns->said);
	room_finish(&ns->room);
	pil_close_p(&ns->say_fd);
	pil_close_p(&ns->card_fd);
	free(ns);
}

static int make_pipe(int *read_fd, int *write_fd)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	*read_fd = fds[0];
	*write_fd = fds[1];
	return 0;
}

static void close_start_fds(struct start_fds *fds)
{
	pil_close_p(&fds->life);
	pil_close_p(&fds->ready);
	pil_close_p(&fds->entered);
	pil_close_p(&fds->go);
}

/* In the child that becomes pillion-init, with the right to set a filter without giving up that
 * programs may gain privileges. */
static int filter_calls(void)
{
	struct sock_filter code[CALLS_MAX_CODE];
	struct sock_fprog program = {.filter = code};

	program.len = (unsigned short)calls_filter(code);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) ? -errno : 0;
}

static int prepare(void *arg)
{
	const struct rlimit no_core = {1, 1}; /* see calls.c; 0 would not keep a program away */
	struct ns *ns = arg;
	int ret = cgroup_enter(&ns->group);

	if (!ret && setrlimit(RLIMIT_CORE, &no_core))
		ret = -errno;
	if (!ret)
		ret = bindfs_mount(&ns->bindfs);
	if (!ret)
		ret = room_enter(&ns->room, ns->tree);
	return ret || !ns->filter ? ret : filter_calls();
}

static pid_t spawn_outer(struct ns *ns, const struct backend_run *run,
			 const struct guest_files *files, const struct start_fds *fds,
			 struct pil_err *err)
{
	static char *const environment[] = {NULL}; /* pillion-init makes its own */
	_auto_free char *guest_dir = str_printf("%s/guest", run->dir);
	_auto_argv struct argv a = {0};
	struct userns_stage stage = {.prepare = prepare, .arg = ns};
	const int keep[] = {fds->life, fds->ready,     fds->entered,
			    fds->go,   run->listen_fd, run->forward_fd}; /* -1 is nothing */
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = ns->say_fd,
				 .stderr_fd = ns->say_fd,
				 .keep_fds = keep,
				 .n_keep_fds = ARRAY_SIZE(keep),
				 .new_session = true,
				 .die_with_us = true,
				 .envp = environment};
	pid_t pid;

	ns->tree = userns_stage_add(&stage, run->spec->folder);
	furnish(ns, &stage, run, files, guest_dir);
	add_init(&a, run, fds, ns);
	pid = userns_spawn(a.v, &stage, USERNS_OWN_PIDS, &opts, err);
	ns->tree = NULL; /* the stage's */
	if (pid != -ELOOP)
		return pid;
	pil_err_hint(err, "find %s -maxdepth 3 -type l; put folders in the place of links",
		     run->spec->folder);
	return pil_err_say(
		err, ELOOP,
		"start sandbox: a symbolic link in its tree is in the way of a mount, at "
		"/dev, /mnt, /proc, /run, /sys, /tmp, " EXPOSED_DIR " or " EXPOSED_WSL);
}

/* The supervisor's ends of what a starting machine is asked and told by. */
struct our_fds {
	int entered, go, ready;
};

static int open_fds(struct ns *ns, struct start_fds *fds, struct our_fds *ours, struct pil_err *err)
{
	int ret = said_open(&ns->said, "sandbox", &ns->say_fd, err);

	if (ret)
		return ret;
	if (make_pipe(&fds->life, &ns->life_fd) || make_pipe(&ours->ready, &fds->ready) ||
	    make_pipe(&ours->entered, &fds->entered) || make_pipe(&fds->go, &ours->go))
		return pil_err_set(err, errno, "start sandbox");
	return 0;
}

/* A machine without one is worth having: it is said why. */
static void make_group(struct ns *ns, const struct backend_run *run)
{
	struct pil_err err = {0};
	_auto_free char *base = cgroup_base("/proc/self/cgroup", "/proc/self/mountinfo", &err);
	uint64_t max_bytes = (uint64_t)run->spec->memory_bytes;
	uint64_t processes = (uint64_t)run->spec->processes;

	if (!max_bytes)
		max_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
	if (!processes)
		processes = cgroup_max_processes();
	if (!base || cgroup_create(&ns->group, base, run->spec->name, processes, max_bytes, &err))
		log_info("%s%s%s", err.msg, err.hint[0] ? "; try: " : "", err.hint);
}

static int look_at_shares(const struct machine_spec *spec, struct pil_err *err)
{
	int ret = 0;

	for (int i = 0; i < spec->n_shares && !ret; i++) {
		if (spec->shares[i].plain)
			ret = shares_refuse_sockets(spec->shares[i].host, err);
		else if (spec->shares[i].direct)
			shares_warn_of_sockets(spec->shares[i].host);
		else
			ret = bindfs_usable(&spec->shares[i], err);
	}
	return ret;
}

/* Starts the outer process, waits until pillion-init has its namespaces, gives it a network, lets
 * it go on. */
static int bring_up(struct ns *ns, const struct backend_run *run, struct start_fds *fds,
		    const struct our_fds *ours, struct pil_err *err)
{
	struct guest_files files;
	int ret = guest_files_find(&files, err);

	if (ret)
		return ret;
	ret = look_at_shares(run->spec, err);
	if (!ret)
		ret = bindfs_init(&ns->bindfs, run->dir, err);
	make_group(ns, run);
	ns->outer = ret ? ret : spawn_outer(ns, run, &files, fds, err);
	guest_files_finish(&files);
	close_start_fds(fds);
	if (ns->outer < 0)
		return ns->outer;
	ret = bindfs_serve(&ns->bindfs, ns->say_fd, err);
	if (ret)
		return ret;
	ns->init = await_init(ns->outer, ours->entered);
	if (ns->init <= 0)
		return pil_err_say(err, EIO, "the sandbox ended before it stood");
	if (!ns->no_network)
		attach_network(ns);
	return write(ours->go, "", 1) == 1 ? 0 : pil_err_set(err, errno, "start sandbox");
}

static int start(void **state, const struct backend_run *run, int *ready_fd, struct pil_err *err)
{
	struct start_fds fds = {-1, -1, -1, -1};
	struct our_fds ours = {-1, -1, -1};
	struct ns *ns = calloc(1, sizeof(*ns));
	int ended_fd, ret;

	if (!ns)
		return -ENOMEM;
	ns->life_fd = ns->say_fd = ns->said.read_fd = ns->card_fd = -1;
	ns->bindfs.near_fd = ns->bindfs.far_fd = ns->group.procs_fd = -1;
	ns->map_loopback = run->spec->host_loopback;
	ns->no_network = !run->spec->network;
	ns->filter = run->spec->system_call_filter;
	ns->own.closed = ns->map_loopback ? OWN_ADDRS_OPEN : OWN_ADDRS_UNREAD;
	refresh_own_addrs(ns);
	ret = open_fds(ns, &fds, &ours, err);
	if (!ret)
		ret = bring_up(ns, run, &fds, &ours, err);
	close_start_fds(&fds);
	pil_close_p(&ours.entered);
	pil_close_p(&ours.go);
	if (ret) {
		pil_close_p(&ours.ready);
		stop(ns, 0);
		return ret;
	}
	*ready_fd = ours.ready;
	*state = ns;
	ended_fd = (int)syscall(SYS_pidfd_open, ns->outer, 0);
	return ended_fd < 0 ? pil_err_set(err, errno, "watch sandbox") : ended_fd;
}

extern const struct backend backend_ns;
const struct backend backend_ns = {.name = "ns",
				   .title = "sandbox",
				   .version = 1,
				   .ready_ms = 30000,
				   .usable = usable,
				   .start = start,
				   .tend = tend,
				   .said = said,
				   .polite_ms = 4000,
				   .ask_to_end = ask_to_end,
				   .stop = stop};
