/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-exec: one device, served.  Started by the broker inside the jail (src/broker/jail.c):
 *
 *   pillion-exec [--as UID] [--lib-dir DIR] [--api ID] --probe
 *   pillion-exec [--as UID] [--lib-dir DIR] --api ID --device NAME --control-fd FD
 *                [--ledger FD:NUMBER]
 *
 * --probe writes struct wire_device[] to standard output: what that API reaches, or all of them do.
 * --ledger: the ledger of the device's card, and our number in it (exec/ledger.h).
 *
 * It depends on libc alone, so that it runs in any runtime root as new as the host's libc.
 *
 * When the broker goes away the sessions go on: programs in the middle of their work do not notice.
 * The executor leaves when the last of them ends.
 *
 * Root starts it with the one capability --as needs: it becomes that user and group, in the groups
 * that own device nodes, before a vendor's code is loaded. */
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "exec/account.h"
#include "exec/api.h"
#include "exec/card.h"
#include "exec/session.h"
#include "exec/turn.h"
#include "port/device_nodes.h"
#include "wire/control.h"

enum { EXIT_STUCK = 4 };

/* What this executor serves. */
struct served {
	const struct exec_api *api;
	void *dev;
	struct card *card;
	int control_fd;
};

static int probe_one(const struct exec_api *api, const struct exec_opts *opts,
		     struct wire_device *out, int max)
{
	struct pil_err err = {0};
	void *host = NULL;
	int n;

	if (api->load(&host, opts, &err)) {
		log_err("%s", err.msg);
		return -1;
	}
	n = api->devices(host, out, max);
	for (int i = 0; i < n; i++) {
		out[i].api = api->wire->id;
		out[i].api_version = api->wire->version;
		snprintf(out[i].api_name, sizeof(out[i].api_name), "%s", api->wire->name);
		if (api->per_program)
			out[i].flags |= WIRE_DEVICE_PER_PROGRAM;
		if (api->example)
			out[i].flags |= WIRE_DEVICE_EXAMPLE;
	}
	return n;
}

/* Of @only, or, NULL, of all APIs. */
static int probe(const struct exec_api *only, const struct exec_opts *opts)
{
	struct wire_device devices[WIRE_MAX_DEVICES];
	int n = 0;

	for (int i = 0; exec_apis[i]; i++) {
		int more = 0;

		if (!only || only == exec_apis[i])
			more = probe_one(exec_apis[i], opts, devices + n, WIRE_MAX_DEVICES - n);
		if (more < 0)
			return EXIT_FAILURE;
		n += more;
	}
	return pil_write_all(STDOUT_FILENO, devices, sizeof(devices[0]) * (size_t)n) ? EXIT_FAILURE
										     : 0;
}

/* Takes @fd, of which the machine's gate has another (host.h): nothing that a guest has queued
 * there is dropped in this thread. */
static void refuse(int fd, enum wire_status status)
{
	struct wire_welcome sorry = {.magic = WIRE_MAGIC,
				     .version = WIRE_VERSION,
				     .status = (uint16_t)status};

	if (send(fd, &sorry, sizeof(sorry), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_dbg("refuse a session: %s", strerror(errno));
	close(fd);
}

static void open_session(const struct served *x, struct control_open *open, int fd)
{
	struct session_opts opts = {
		.fd = fd,
		.hello = &open->hello,
		.machine = open->machine,
		.quota_bytes = open->quota_bytes,
		.weight = open->weight,
		.shm_ok = open->shm_ok,
	};
	struct pil_err err = {0};

	open->machine[sizeof(open->machine) - 1] = '\0';
	if (open->hello.api != x->api->wire->id || open->hello.api_version != x->api->wire->version)
		refuse(fd, WIRE_E_API);
	else if (open->max_sessions &&
		 account_n_sessions(x->card, open->machine) >= open->max_sessions)
		refuse(fd, WIRE_E_BUSY);
	else if (session_start(x->api, x->dev, x->card, &opts, &err))
		log_err("%s", err.msg);
}

static void report(const struct served *x)
{
	struct control_report r = {.kind = CONTROL_REPORT,
				   .n_sessions = card_n_sessions(x->card),
				   .n_faults = card_n_faults(x->card)};

	turn_look(x->card);
	card_memory(x->card, &r.memory_free, &r.memory_total);
	if (send(x->control_fd, &r, sizeof(r), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_dbg("report: %s", strerror(errno)); /* the broker is gone, or asks again */
}

/* The first process of a pid namespace ends on no signal that it does not catch. */
static void on_term(int number)
{
	(void)number;
	_exit(EXIT_SUCCESS);
}

/* The thread that computes cannot be ended without the process.  The programs of all machines see
 * their streams end, and connect to the next executor. */
static void on_stuck(void *ctx, const char *machine)
{
	struct control_stuck said = {.kind = CONTROL_STUCK};

	snprintf(said.machine, sizeof(said.machine), "%s", machine);
	log_err("what machine '%s' computes does not end and others wait: this executor ends "
		"itself",
		said.machine);
	if (send(*(const int *)ctx, &said, sizeof(said), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_dbg("report: %s", strerror(errno));
	_exit(EXIT_STUCK);
}

static int serve(struct served *x)
{
	struct log_limit lost = {0};

	x->card->stuck_ctx = &x->control_fd;
	x->card->stuck = on_stuck;
	report(x);
	for (;;) {
		struct control_open open;
		int fds[2], n_fds = ARRAY_SIZE(fds); /* the stream, and what keeps the gate's */
		ssize_t n = pil_recv_fds(x->control_fd, &open, sizeof(open), fds, &n_fds, 0);

		if (n == -EPROTO) { /* no room for the descriptor: this program goes without */
			if (log_allowed(&lost))
				log_warn("a session could not be taken up: too many descriptors");
			continue;
		}
		if (n <= 0)
			break;
		if (n == (ssize_t)sizeof(open) && n_fds == 2 && open.kind == CONTROL_OPEN)
			open_session(x, &open, pil_take_fd(&fds[0]));
		else if (n_fds == 0)
			report(x);
		for (int i = 0; i < n_fds; i++) /* the stream before the gate's pipe */
			pil_close_p(&fds[i]);
	}
	close(x->control_fd);
	while (card_n_sessions(x->card))
		poll(NULL, 0, 200);
	return 0;
}

static int become(uid_t uid)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[2] = {0};
	gid_t groups[32];
	int n = device_nodes_groups("", groups, ARRAY_SIZE(groups));

	if (setgroups((size_t)n, groups) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid) ||
	    syscall(SYS_capset, &header, none)) {
		log_err("become user %u: %s", uid, strerror(errno));
		return -1;
	}
	return 0;
}

struct ledger_opts {
	int fd; /* -1: this executor is the card's only one */
	uint32_t number;
};

struct options {
	const struct exec_api *api;
	struct exec_opts exec;
	struct ledger_opts ledger;
	uint64_t control_fd, uid;
	bool probe;
};

/* "FD:NUMBER" */
static bool parse_ledger(const char *text, struct ledger_opts *out)
{
	char fd_text[8] = "";
	size_t len = strcspn(text, ":");
	uint64_t fd, number;

	if (len >= sizeof(fd_text) || text[len] != ':')
		return false;
	memcpy(fd_text, text, len);
	if (!str_to_u64(fd_text, 1024, &fd) ||
	    !str_to_u64(text + len + 1, LEDGER_EXECUTORS - 1, &number))
		return false;
	*out = (struct ledger_opts){(int)fd, (uint32_t)number};
	return true;
}

/* False: not what the broker says. */
static bool parse_options(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{"as", required_argument, NULL, 'a'},
		{"api", required_argument, NULL, 'i'},
		{"lib-dir", required_argument, NULL, 'l'},
		{"probe", no_argument, NULL, 'p'},
		{"device", required_argument, NULL, 'd'},
		{"control-fd", required_argument, NULL, 'c'},
		{"ledger", required_argument, NULL, 'L'},
		{0},
	};
	uint64_t id;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'l')
			o->exec.lib_dir = optarg;
		else if (c == 'p')
			o->probe = true;
		else if (c == 'd')
			o->exec.device = optarg;
		else if (c == 'i' ? !str_to_u64(optarg, UINT16_MAX, &id) ||
					    !(o->api = exec_api_find(id))
			 : c == 'a' ? !str_to_u64(optarg, UINT32_MAX - 1, &o->uid)
			 : c == 'c' ? !str_to_u64(optarg, 1024, &o->control_fd)
			 : c == 'L' ? !parse_ledger(optarg, &o->ledger)
				    : true)
			return false;
	}
	return o->probe || (o->api && o->exec.device && o->control_fd != UINT64_MAX);
}

/* Loads the library and opens the device. */
static int set_up(struct served *x, const struct options *o, struct pil_err *err)
{
	void *host;
	int ret = x->api->load(&host, &o->exec, err);

	if (!ret)
		ret = card_create(&x->card, o->ledger.fd, o->ledger.number, err);
	if (o->ledger.fd >= 0)
		close(o->ledger.fd);
	return ret ? ret : x->api->open(&x->dev, host, o->exec.device, x->card, err);
}

int main(int argc, char **argv)
{
	const struct rlimit no_core = {0, 0};
	struct options o = {.control_fd = UINT64_MAX, .ledger.fd = -1};
	struct served x;
	struct pil_err err = {0};

	log_init("pillion-exec");
	if (!parse_options(&o, argc, argv)) {
		log_err("--api ID, --device and --control-fd are needed, or --probe");
		return EXIT_FAILURE;
	}
	signal(SIGTERM, on_term);
	setrlimit(RLIMIT_CORE, &no_core);
	pil_raise_fd_limit();
	if (o.uid && become((uid_t)o.uid))
		return EXIT_FAILURE;
	if (o.probe)
		return probe(o.api, &o.exec);
	x = (struct served){.api = o.api, .control_fd = (int)o.control_fd};
	if (set_up(&x, &o, &err)) {
		log_err("%s", err.msg);
		return EXIT_FAILURE;
	}
	return serve(&x);
}
