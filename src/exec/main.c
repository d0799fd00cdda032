/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-exec: one device, served.  Started by the broker inside the jail (src/broker/jail.c):
 *
 *   pillion-exec [--ggml-dir DIR] --probe            struct wire_device[] on standard output
 *   pillion-exec [--ggml-dir DIR] --device N --control-fd FD
 *
 * It depends on libc alone, so that it runs in any runtime root as new as the host's libc.
 *
 * When the broker goes away the sessions go on: programs in the middle of their work do not notice.
 * The executor leaves when the last of them ends. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "control.h"
#include "device.h"
#include "fd.h"
#include "ggml_host.h"
#include "log.h"
#include "session.h"
#include "str.h"

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

static void open_session(struct gg_device *device, struct control_open *open, int fd)
{
	struct session_opts opts = {
		.fd = fd,
		.hello = &open->hello,
		.machine = open->machine,
		.quota_bytes = open->quota_bytes,
		.shm_ok = open->shm_ok,
	};
	struct pil_err err = {0};

	open->machine[sizeof(open->machine) - 1] = '\0';
	if (session_start(device, &opts, &err))
		log_err("%s", err.msg);
}

static int serve(struct gg_device *device, int control_fd)
{
	for (;;) {
		struct control_open open;
		int fds[1], n_fds = 1;
		ssize_t n = pil_recv_fds(control_fd, &open, sizeof(open), fds, &n_fds);

		if (n <= 0)
			break;
		if (n == (ssize_t)sizeof(open) && n_fds == 1)
			open_session(device, &open, fds[0]);
		else if (n_fds == 1)
			close(fds[0]);
	}
	close(control_fd);
	while (session_count(device))
		poll(NULL, 0, 100);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"ggml-dir", required_argument, NULL, 'g'},
		{"probe", no_argument, NULL, 'p'},
		{"device", required_argument, NULL, 'd'},
		{"control-fd", required_argument, NULL, 'c'},
		{0},
	};
	const struct rlimit no_core = {0, 0};
	const char *ggml_dir = NULL;
	uint64_t device_index = UINT64_MAX, control_fd = UINT64_MAX;
	struct ggml_host *host;
	struct gg_device *device;
	struct pil_err err = {0};
	bool want_probe = false;
	int c;

	log_init("pillion-exec");
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'g')
			ggml_dir = optarg;
		else if (c == 'p')
			want_probe = true;
		else if (c == 'd' && !str_to_u64(optarg, WIRE_MAX_DEVICES * 4, &device_index))
			return EXIT_FAILURE;
		else if (c == 'c' && !str_to_u64(optarg, 1024, &control_fd))
			return EXIT_FAILURE;
		else if (c == '?')
			return EXIT_FAILURE;
	}
	setrlimit(RLIMIT_CORE, &no_core);
	if (ggml_host_load(&host, ggml_dir, &err))
		return fail(&err);
	if (want_probe)
		return probe(host);
	if (device_index == UINT64_MAX || control_fd == UINT64_MAX) {
		log_err("--device and --control-fd are needed");
		return EXIT_FAILURE;
	}
	if (gg_device_open(&device, host, (uint32_t)device_index, &err))
		return fail(&err);
	return serve(device, (int)control_fd);
}
