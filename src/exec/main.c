/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-exec: one device, served.  Started by the broker inside the jail (src/broker/jail.c):
 *
 *   pillion-exec [--as UID] [--ggml-dir DIR] --probe     struct wire_device[] on standard output
 *   pillion-exec [--as UID] [--ggml-dir DIR] --device NAME --control-fd FD [--ledger FD:NUMBER]
 *
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
#include "exec/card.h"
#include "exec/ggml/device.h"
#include "exec/ggml/ggml_host.h"
#include "exec/ggml/session.h"
#include "exec/turn.h"
#include "port/device_nodes.h"
#include "wire/control.h"

enum { EXIT_STUCK = 4 };

#define REFERENCE_NAME "CPU" /* what ggml calls the host's processors */

static int fail(const struct pil_err *err)
{
	log_err("%s", err->msg);
	return EXIT_FAILURE;
}

static int probe(struct ggml_host *host)
{
	struct wire_device devices[WIRE_MAX_DEVICES];
	int n = ggml_host_devices(host, devices, WIRE_MAX_DEVICES);

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

static void open_session(struct gg_device *device, struct control_open *open, int fd)
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
	if (open->max_sessions &&
	    account_n_sessions(device->card, open->machine) >= open->max_sessions)
		refuse(fd, WIRE_E_BUSY);
	else if (session_start(device, &opts, &err))
		log_err("%s", err.msg);
}

static void report(struct gg_device *device, int control_fd)
{
	struct control_report r = {.kind = CONTROL_REPORT,
				   .n_sessions = card_n_sessions(device->card),
				   .n_faults = card_n_faults(device->card)};
	size_t free_bytes = 0, total_bytes = 0;

	turn_look(device->card);
	device->host->api.ggml_backend_dev_memory(device->dev, &free_bytes, &total_bytes);
	r.memory_free = free_bytes;
	r.memory_total = total_bytes;
	if (send(control_fd, &r, sizeof(r), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
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
	log_err("a graph of machine '%s' does not end and others wait: this executor ends itself",
		said.machine);
	if (send(*(const int *)ctx, &said, sizeof(said), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		log_dbg("report: %s", strerror(errno));
	_exit(EXIT_STUCK);
}

static int serve(struct gg_device *device, int control_fd)
{
	struct log_limit lost = {0};

	device->card->stuck_ctx = &control_fd;
	device->card->stuck = on_stuck;
	report(device, control_fd);
	for (;;) {
		struct control_open open;
		int fds[2], n_fds = ARRAY_SIZE(fds); /* the stream, and what keeps the gate's */
		ssize_t n = pil_recv_fds(control_fd, &open, sizeof(open), fds, &n_fds, 0);

		if (n == -EPROTO) { /* no room for the descriptor: this program goes without */
			if (log_allowed(&lost))
				log_warn("a session could not be taken up: too many descriptors");
			continue;
		}
		if (n <= 0)
			break;
		if (n == (ssize_t)sizeof(open) && n_fds == 2 && open.kind == CONTROL_OPEN)
			open_session(device, &open, pil_take_fd(&fds[0]));
		else if (n_fds == 0)
			report(device, control_fd);
		for (int i = 0; i < n_fds; i++) /* the stream before the gate's pipe */
			pil_close_p(&fds[i]);
	}
	close(control_fd);
	while (card_n_sessions(device->card))
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

/* ggml loads every back end it finds; for the reference device the Vulkan loader need not load its
 * drivers as well (Mesa's bring LLVM: 25 MiB). */
static void spare_gpu_drivers(void)
{
	setenv("VK_LOADER_DRIVERS_DISABLE", "*", 1);
	setenv("VK_LOADER_LAYERS_DISABLE", "*", 1);
}

struct ledger_opts {
	int fd; /* -1: this executor is the card's only one */
	uint32_t number;
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

static int open_device(struct gg_device **out, struct ggml_host *host, const char *name,
		       const struct ledger_opts *ledger, struct pil_err *err)
{
	struct card *card;
	int ret = card_create(&card, ledger->fd, ledger->number, err);

	if (ledger->fd >= 0)
		close(ledger->fd);
	return ret ? ret : gg_device_open(out, host, name, card, err);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"as", required_argument, NULL, 'a'},
		{"ggml-dir", required_argument, NULL, 'g'},
		{"probe", no_argument, NULL, 'p'},
		{"device", required_argument, NULL, 'd'},
		{"control-fd", required_argument, NULL, 'c'},
		{"ledger", required_argument, NULL, 'l'},
		{0},
	};
	const struct rlimit no_core = {0, 0};
	const char *ggml_dir = NULL, *device_name = NULL;
	uint64_t control_fd = UINT64_MAX, uid = 0;
	struct ggml_host *host;
	struct gg_device *device;
	struct ledger_opts ledger = {.fd = -1};
	struct pil_err err = {0};
	bool want_probe = false;
	int c;

	log_init("pillion-exec");
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'g')
			ggml_dir = optarg;
		else if (c == 'p')
			want_probe = true;
		else if (c == 'a' && !str_to_u64(optarg, UINT32_MAX - 1, &uid))
			return EXIT_FAILURE;
		else if (c == 'd')
			device_name = optarg;
		else if (c == 'c' && !str_to_u64(optarg, 1024, &control_fd))
			return EXIT_FAILURE;
		else if (c == 'l' && !parse_ledger(optarg, &ledger))
			return EXIT_FAILURE;
		else if (c == '?')
			return EXIT_FAILURE;
	}
	signal(SIGTERM, on_term);
	setrlimit(RLIMIT_CORE, &no_core);
	pil_raise_fd_limit();
	if (uid && become((uid_t)uid))
		return EXIT_FAILURE;
	if (device_name && !strcmp(device_name, REFERENCE_NAME))
		spare_gpu_drivers();
	if (ggml_host_load(&host, ggml_dir, &err))
		return fail(&err);
	if (want_probe)
		return probe(host);
	if (!device_name || control_fd == UINT64_MAX) {
		log_err("--device and --control-fd are needed");
		return EXIT_FAILURE;
	}
	if (open_device(&device, host, device_name, &ledger, &err))
		return fail(&err);
	return serve(device, (int)control_fd);
}
