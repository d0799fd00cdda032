/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: some KVMs are there and emulate every instruction, so /dev/kvm alone says
 * nothing.  pillion-vmm --probe times a guest that counts against the host.  The verdict is kept
 * in the cache, with the boot and the version it holds for.  That KVM is absent is not kept: what
 * keeps it away may end. */
#include "machine/kvm_probe.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"

enum { PROBE_MS = 10000, MAX_TEXT = 4096 };

static const char *const state_str[] = {[KVM_ABSENT] = "absent",
					[KVM_DENIED] = "denied",
					[KVM_EMULATED] = "emulated",
					[KVM_USABLE] = "usable"};
static_assert(ARRAY_SIZE(state_str) == KVM_NUM_STATES, "state_str");

static void explain(struct kvm_verdict *v, double slowdown, const char *why)
{
	switch (v->state) {
	case KVM_USABLE:
		snprintf(v->why, sizeof(v->why), "KVM runs guests at the host's speed");
		break;
	case KVM_EMULATED:
		if (slowdown <= 0)
			snprintf(v->why, sizeof(v->why), "%s", why);
		else
			snprintf(v->why, sizeof(v->why),
				 "/dev/kvm is there, but emulates guest code: %.0f times slower "
				 "than the host",
				 slowdown);
		break;
	case KVM_DENIED:
		snprintf(
			v->why, sizeof(v->why),
			"no permission for /dev/kvm: sudo usermod -aG kvm $USER, then log in anew");
		break;
	default:
		snprintf(v->why, sizeof(v->why), "%s",
			 why[0] ? why
				: "no /dev/kvm: switch virtualization on in the firmware, "
				  "or: sudo modprobe -a kvm_intel kvm_amd");
	}
}

bool kvm_probe_parse(const char *text, struct kvm_verdict *out)
{
	json_auto_t *root = json_loads(text, 0, NULL);
	const char *state, *why = "", *hint = "";
	_auto_free char *both = NULL;
	double slowdown;
	int processors = 0;

	if (json_unpack(root, "{s:s, s?i, s?s, s?s}", "kvm", &state, "processors", &processors,
			"why", &why, "hint", &hint) ||
	    processors < 0)
		return false;
	slowdown = json_number_value(json_object_get(root, "slowdown")); /* null: not measured */
	both = str_printf("%s%s%s", why, hint[0] ? "; " : "", hint);
	for (int i = 0; i < KVM_NUM_STATES; i++)
		if (!strcmp(state, state_str[i])) {
			out->state = (enum kvm_state)i;
			out->max_processors = (unsigned)processors;
			explain(out, slowdown, both);
			return true;
		}
	return false;
}

unsigned kvm_probe_processors(unsigned wanted, long of_host, unsigned max)
{
	unsigned most = of_host > 0 ? (unsigned)of_host : 1;

	if (max && most > max)
		most = max;
	return wanted && wanted < most ? wanted : most;
}

/* One line that names this boot of the host and this build of the probe. */
static void read_boot_id(char *out, size_t size)
{
	_auto_free char *text = NULL;

	if (pil_read_file("/proc/sys/kernel/random/boot_id", 128, &text) <= 0)
		text = strdup("?");
	snprintf(out, size, "%.60s %s", text ? strtok(text, "\n") : "?", PILLION_VERSION);
}

static bool run_probe(char *text, size_t size)
{
	_auto_free char *program = state_find_program("vmm", "pillion-vmm", NULL);
	struct proc_opts opts = {.stdin_fd = -1, .stderr_fd = -1, .die_with_us = true};
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	int fds[2];
	ssize_t n;
	pid_t pid;

	if (!program || pipe2(fds, O_CLOEXEC))
		return false;
	read_fd = fds[0];
	write_fd = fds[1];
	opts.stdout_fd = write_fd;
	pid = proc_spawn((char *[]){program, (char *)"--probe", NULL}, &opts, NULL);
	if (pid < 0)
		return false;
	if (proc_wait(pid, PROBE_MS) == -ETIMEDOUT)
		proc_stop(pid, 100);
	pil_set_nonblock(read_fd, true);
	n = read(read_fd, text, size - 1);
	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static char *verdict_path(const struct state_dirs *dirs)
{
	return str_printf("%s/kvm", dirs->cache);
}

void kvm_probe_forget(const struct state_dirs *dirs)
{
	_auto_free char *path = verdict_path(dirs);

	unlink(path);
}

void kvm_probe(const struct state_dirs *dirs, struct kvm_verdict *out)
{
	_auto_free char *path = verdict_path(dirs);
	_auto_free char *kept = NULL;
	char boot[128], text[MAX_TEXT];
	char *line;

	*out = (struct kvm_verdict){.state = KVM_ABSENT};
	if (access("/dev/kvm", F_OK)) {
		explain(out, 0, "");
		return;
	}
	if (access("/dev/kvm", R_OK | W_OK)) {
		out->state = KVM_DENIED;
		explain(out, 0, "");
		return;
	}
	read_boot_id(boot, sizeof(boot));
	if (pil_read_file(path, MAX_TEXT, &kept) > 0 && (line = strchr(kept, '\n'))) {
		*line++ = '\0';
		if (!strcmp(kept, boot) && kvm_probe_parse(line, out))
			return;
	}
	if (run_probe(text, sizeof(text)) && kvm_probe_parse(text, out)) {
		_auto_free char *keep = str_printf("%s\n%s", boot, text);

		if (out->state == KVM_ABSENT) /* what keeps it away may end */
			return;
		if (path_mkdirs(dirs->cache, 0755) == 0 &&
		    pil_write_file(path, 0644, keep, strlen(keep)))
			unlink(path);
		return;
	}
	snprintf(out->why, sizeof(out->why), "pillion-vmm --probe did not answer");
}
