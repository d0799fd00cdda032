/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-init: pid 1 of a machine, and the agent that runs commands for the command line.
 *
 *   pillion-init OPTIONS   in a sandbox; agent/init_options.c has them all
 *   pillion-init           in a microVM, where the options come from the host (vm.c)
 *
 * Theory of operation: sets the machine up, then accepts connections; each is a command
 * (guest_session.c).  It is the parent of every orphan and reaps them all.  The machine ends when
 * the life descriptor reports end of file (its supervisor is gone or wants an end), or when it has
 * been idle for idle-ms: TERM to all processes, two seconds, KILL, exit -- and with pid 1 the whole
 * pid namespace.
 *
 * A machine is idle while no command runs and no process is left: what a command has started, a
 * service of the boot command, or a forwarded connection, which has a process of its own.  All of
 * them descend from us, so that there is one if we have a child. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/init_options.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/str.h"
#include "guest/init/confine.h"
#include "guest/init/forward.h"
#include "guest/init/guest_session.h"
#include "guest/init/host_clock.h"
#include "guest/init/reclaim.h"
#include "guest/init/setup.h"
#include "guest/init/vm.h"

struct init {
	struct guest guest;
	struct loop_source listener, life, signals;
	struct loop_timer idle;
	int64_t idle_ms; /* < 0: never */
	struct host_clock clock;
	struct reclaim reclaim;
	const struct init_options *vm; /* NULL: a sandbox */
};

static bool has_children(void)
{
	siginfo_t child;

	return waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) == 0 || errno != ECHILD;
}

static void end_later(struct init *init)
{
	if (init->idle_ms >= 0 && list_empty(&init->guest.sessions) && !has_children())
		loop_timer_arm(init->guest.loop, &init->idle, init->idle_ms);
}

static void became_idle(struct guest *guest)
{
	struct init *init = container_of(guest, struct init, guest);

	end_later(init);
	reclaim_rest(&init->reclaim);
}

/* With a child, such as a forwarded connection, its end counts. */
static void idle_expired(struct loop_timer *timer)
{
	struct init *init = container_of(timer, struct init, idle);

	if (!has_children())
		loop_stop(init->guest.loop, 0);
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	struct init *init = container_of(source, struct init, listener);
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	loop_timer_cancel(&init->idle);
	if (init->vm)
		vm_mend_mounts(init->vm);
	guest_session_create(&init->guest, fd);
}

static void life_ready(struct loop_source *source, uint32_t events)
{
	struct init *init = container_of(source, struct init, life);

	(void)events;
	if (!host_clock_read(&init->clock, source->fd))
		loop_stop(init->guest.loop, 0);
}

static void reap(struct guest *guest)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		guest_session_child_ended(guest, pid, status);
	end_later(container_of(guest, struct init, guest));
}

static void signal_ready(struct loop_source *source, uint32_t events)
{
	struct init *init = container_of(source, struct init, signals);
	struct signalfd_siginfo info;

	(void)events;
	while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			reap(&init->guest);
		else
			loop_stop(init->guest.loop, 0);
	}
}

static int watch(struct init *init, const struct init_options *o)
{
	sigset_t set;
	int ret;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	ret = loop_create(&init->guest.loop);
	if (ret)
		return ret;
	init->listener = (struct loop_source){.fd = o->listen_fd, .ready = listener_ready};
	init->life = (struct loop_source){.fd = o->life_fd, .ready = life_ready};
	init->signals = (struct loop_source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
					     .ready = signal_ready};
	pil_set_nonblock(o->listen_fd, true);
	fcntl(o->listen_fd, F_SETFD, FD_CLOEXEC);
	fcntl(o->life_fd, F_SETFD, FD_CLOEXEC);
	fcntl(o->ready_fd, F_SETFD, FD_CLOEXEC);
	ret = loop_add(init->guest.loop, &init->listener, EPOLLIN);
	if (!ret)
		ret = loop_add(init->guest.loop, &init->life, EPOLLIN);
	if (!ret)
		ret = loop_add(init->guest.loop, &init->signals, EPOLLIN);
	return ret;
}

static void end_everything(void)
{
	int64_t due = clock_now_ms() + 2000;

	kill(-1, SIGTERM);
	while (clock_now_ms() < due) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0 && errno == ECHILD)
			return;
		if (pid == 0)
			poll(NULL, 0, 10);
	}
	kill(-1, SIGKILL);
}

/* A sandbox: leaves the host behind, and tells the supervisor, who gives us a network. */
static int enter_sandbox(const struct init_options *o, struct pil_err *err)
{
	int ret = confine_enter(err);

	if (!ret && pil_write_all(o->entered_fd, "", 1))
		ret = pil_err_say(err, EPIPE, "the supervisor has gone");
	close(o->entered_fd);
	return ret;
}

/* Waits until the supervisor has done that.  False: it has gone. */
static bool await_network(const struct init_options *o)
{
	char c;
	int ret = pil_read_all(o->go_fd, &c, 1);

	close(o->go_fd);
	return !ret;
}

/* A microVM: who we are comes from the host.  False: it cannot be started. */
static bool boot(struct init_options *o)
{
	char **argv = NULL;
	int life_fd = -1, argc = vm_begin(&argv, &life_fd);

	if (argc < 0) {
		log_err("ask the host what to start: %s", strerror(-argc));
		return false;
	}
	if (!init_options_parse(argc, argv, o)) {
		log_err("the host sent options this pillion-init does not know");
		return false;
	}
	o->listen_fd = vm_enter(o);
	o->life_fd = life_fd;
	o->ready_fd = dup(life_fd);
	if (o->forward)
		o->forward_fd = vm_listen(FORWARD_VSOCK_PORT);
	return o->listen_fd >= 0;
}

int main(int argc, char **argv)
{
	struct init init = {.guest.became_idle = became_idle, .idle.expired = idle_expired};
	bool vm = vm_booted();
	struct pil_err err = {0};
	struct init_options o;
	int ret;

	log_init("pillion-init");
	umask(022);
	if (vm && !boot(&o)) {
		vm_power_off();
		return EXIT_FAILURE;
	}
	if (!vm && (!init_options_parse(argc, argv, &o) || o.listen_fd < 0 || o.life_fd < 0 ||
		    o.ready_fd < 0 || o.entered_fd < 0 || o.go_fd < 0)) {
		log_err("this program is started by pillion as the first process of a machine");
		return EXIT_FAILURE;
	}
	if (!vm && enter_sandbox(&o, &err)) {
		log_err("%s", err.msg);
		return EXIT_FAILURE;
	}
	list_init(&init.guest.sessions);
	init.guest.distro = o.distro;
	init.guest.default_user = o.user ? o.user : "root";
	init.guest.env = o.env;
	init.idle_ms = o.idle_ms;
	init.vm = vm ? &o : NULL;
	setup_machine(&init.guest.conf, &o);
	if (!vm && !await_network(&o))
		return EXIT_FAILURE;
	setup_start_boot_command(&init.guest.conf);
	ret = watch(&init, &o);
	if (ret) {
		log_err("start the agent: %s", strerror(-ret));
		return EXIT_FAILURE;
	}
	reclaim_begin(&init.reclaim, init.guest.loop, (enum init_reclaim)o.reclaim);
	if (write(o.ready_fd, "", 1) != 1)
		log_warn("nobody waits for the machine");
	if (o.forward_fd < 0)
		close(o.ready_fd);
	else if ((ret = forward_begin(init.guest.loop, o.forward_fd, o.ready_fd)))
		log_warn("localhostForwarding: %s", strerror(-ret));
	became_idle(&init.guest);
	loop_run(init.guest.loop);
	close(o.listen_fd); /* who comes now is told at once, and starts the machine anew */
	end_everything();
	if (vm)
		vm_power_off();
	return EXIT_SUCCESS;
}
