/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-vmm: one light virtual machine.  Exit status: enum vm_end.
 * pillion-vmm --probe: can this host run one?  See probe.h.
 *
 * The order of things in run(): open the files, leave the host behind (jail), make the machine, put
 * its devices and its kernel in, let the processors run, serve the devices until the end. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/report.h"
#include "base/str.h"
#include "virtio/virtio_console.h"
#include "vmm/arch/x86_64/acpi.h"
#include "vmm/arch/x86_64/boot.h"
#include "vmm/arch/x86_64/power.h"
#include "vmm/board.h"
#include "vmm/jail.h"
#include "vmm/hop.h"
#include "vmm/kvm_vm.h"
#include "vmm/memory_file.h"
#include "vmm/options.h"
#include "vmm/probe.h"
#include "vmm/trace.h"
#include "vmm/vcpu.h"

enum {
	END_SECONDS = 1,       /* when we are told to end */
	FAREWELL_SECONDS = 10, /* when the guest ends */
};

struct machine {
	struct vm vm;
	struct vcpus vcpus;
	struct power power;
	struct loop *loop;
	struct hop hop;
	struct board board;
	struct loop_source ended, signals;
};

static void on_end(struct loop_source *source, uint32_t events)
{
	struct machine *m = container_of(source, struct machine, ended);

	(void)events;
	alarm(FAREWELL_SECONDS);
	loop_stop(m->loop, atomic_load(&m->vm.end));
}

/* A disk does not let go.  What the guest has flushed is safe. */
static void on_alarm(int sig)
{
	(void)sig;
	_exit(VM_END_POWER_OFF);
}

/* #syscalls: read alarm */
static void on_signal(struct loop_source *source, uint32_t events)
{
	struct machine *m = container_of(source, struct machine, signals);
	struct signalfd_siginfo info;

	(void)events;
	if (read(source->fd, &info, sizeof(info)) != sizeof(info))
		return;
	alarm(END_SECONDS);
	loop_stop(m->loop, VM_END_POWER_OFF);
}

static int watch_end(struct machine *m, struct pil_err *err)
{
	const struct sigaction alarm_action = {.sa_handler = on_alarm};
	sigset_t set;
	int ret;

	sigaction(SIGALRM, &alarm_action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	m->signals = (struct loop_source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
					  .ready = on_signal};
	m->ended = (struct loop_source){.fd = m->vm.end_fd, .ready = on_end};
	ret = m->signals.fd < 0 ? -errno : loop_add(m->loop, &m->signals, EPOLLIN);
	if (!ret)
		ret = loop_add(m->loop, &m->ended, EPOLLIN);
	return ret ? pil_err_set(err, -ret, "watch the machine") : 0;
}

static int load(struct machine *m, const struct options *o, struct pil_err *err)
{
	struct boot_opts boot = {.kernel = o->kernel,
				 .kernel_fd = o->kernel_fd,
				 .initrd = o->initrd,
				 .initrd_fd = o->initrd_fd,
				 .cmdline = o->cmdline};
	struct vcpus_opts vcpus = {.nested = o->nested};
	struct boot_entry entry;
	int ret;

	boot.rsdp_gpa = acpi_write(&m->vm.mem, m->vm.n_vcpus);
	ret = boot_load(&m->vm.mem, &boot, &entry, err);
	if (ret)
		return ret;
	trace_mark("kernel loaded");
	vcpus.entry_gpa = entry.entry_gpa;
	vcpus.start_info_gpa = entry.start_info_gpa;
	return vcpus_init(&m->vcpus, &m->vm, &vcpus, err);
}

static int set_up(struct machine *m, struct options *o, int memory_fd, struct pil_err *err)
{
	struct vm_opts vm = {.mem_bytes = o->memory_mib << 20,
			     .n_vcpus = o->n_vcpus,
			     .memory_fd = memory_fd};
	int ret = vm_init(&m->vm, pil_take_fd(&o->kvm_fd), &vm, err);

	if (ret)
		return ret;
	trace_mark("memory made");
	power_init(&m->power, &m->vm, o->early_fd);
	m->power.mark = o->boot_timer ? trace_guest_mark : NULL;
	ret = loop_create(&m->loop);
	if (!ret)
		ret = hop_init(&m->hop, m->loop);
	if (ret)
		return pil_err_set(err, -ret, "make an event loop");
	ret = watch_end(m, err);
	if (!ret)
		ret = load(m, o, err);
	if (!ret)
		trace_mark("processors made");
	if (!ret && o->jail)
		ret = jail_lock(err);
	if (!ret)
		ret = board_init(&m->board, o, &m->vm, m->loop, &m->hop, err);
	return ret;
}

/* A kernel that says it panics and then resets itself was not asked for a reboot. */
static int judge(struct machine *m, int end, int report_fd)
{
	struct tail *tail = &m->power.tail;
	struct pil_err err = {0};
	char text[VIRTIO_CONSOLE_TAIL_BYTES], safe[4 * sizeof(tail->panic)];

	if (!tail->panicked) /* else its words came by the UART already */
		tail_add(tail, text, virtio_console_tail(m->board.console, text, sizeof(text)));
	tail_add(tail, "\n", 1);
	if (tail->panicked && (end == VM_END_REBOOT || end == VM_END_POWER_OFF))
		end = VM_END_PANIC;
	if (end == VM_END_PANIC || end == VM_END_ERROR) {
		const char *why =
			m->vm.why[0] ? m->vm.why : str_escape(safe, sizeof(safe), tail->panic);

		pil_err_say(&err, EIO, "the machine %s%s%s", vm_end_str[end], why[0] ? ": " : "",
			    why);
		log_err("%s", err.msg);
		report_send(report_fd, &err);
		tail_log(tail);
	}
	return end;
}

/* #syscalls: fdatasync */
static int run(struct options *o, struct pil_err *err)
{
	static struct machine m; /* zero, and not on the stack: everything points into it */
	_auto_fd int memory_fd = -1;
	int ret = options_open(o, err);

	if (!ret && o->jail)
		ret = jail_enter(o, err);
	if (!ret && o->n_fs) {
		memory_fd = memory_file_create(o->memory_mib << 20, err);
		ret = memory_fd < 0 ? memory_fd : 0;
	}
	if (!ret && o->jail)
		ret = jail_drop(o, err);
	if (!ret)
		trace_mark("in the jail");
	if (!ret)
		ret = set_up(&m, o, pil_take_fd(&memory_fd), err);
	if (!ret)
		trace_mark("devices made");
	if (!ret)
		ret = vcpus_start(&m.vcpus, o->jail ? jail_lock_vcpu : NULL, err);
	if (ret)
		return ret;
	trace_mark("kernel entry");
	ret = loop_run(m.loop);
	hop_close(&m.hop);
	vcpus_finish(&m.vcpus);
	ret = ret < 0 ? pil_err_set(err, -ret, "wait for events") : judge(&m, ret, o->report_fd);
	board_finish(&m.board);
	for (unsigned i = 0; i < o->n_disks; i++)
		if (!o->disks[i].read_only && fdatasync(o->disks[i].fd))
			log_err("flush disk '%s': %s", o->disks[i].path, strerror(errno));
	return ret;
}

static int print_probe(void)
{
	struct probe probe;

	probe_run(&probe);
	probe_print(&probe);
	return 0;
}

int main(int argc, char **argv)
{
	struct options o;
	struct pil_err err = {0};
	int ret;

	trace_begin();
	log_init("pillion-vmm");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (argc == 2 && !strcmp(argv[1], "--probe"))
		return print_probe();
	if (!options_parse(&o, argc, argv, &err))
		ret = run(&o, &err);
	else
		ret = -err.code;
	if (ret < 0) {
		log_err("%s", err.msg);
		report_send(o.report_fd, &err);
		if (err.hint[0])
			fprintf(stderr, "hint: %s\n", err.hint);
		return VM_END_ERROR;
	}
	return ret;
}
