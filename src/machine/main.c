/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-machine --spec-fd N [--report-fd M]: the supervisor of the machine that descriptor N
 * describes (spec.h).
 *
 * Theory of operation: takes the machine's lock, so that there is one; goes to the background once
 * the agent serves (or says on descriptor M, report.h, why not); then
 * waits for the end of the machine or for a signal.  While the machine runs it sees to it that its
 * parts and a broker are there and answer: one that was killed is missed within TEND_MS, one that
 * is stuck within a few of them.  It waits for none of them.
 *
 * SIGUSR1 (pillion --terminate) ends the machine politely, which takes as long as its back end
 * allows; one that comes while the machine starts counts when it has.  SIGTERM and SIGINT end us
 * within a second whatever a guest does: its processes get SOON_MS, and an alarm sees to the rest.
 * They are caught, not blocked, so that they end us also in the middle of starting; what is left
 * behind then is what is left when we are killed.
 *
 * Everything the machine consists of is our child and ends with us. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/daemon.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/report.h"
#include "base/str.h"
#include "base/unixsock.h"
#include "broker/broker.h"
#include "config/work.h"
#include "machine/backend.h"
#include "machine/broker_watch.h"
#include "machine/ending.h"
#include "machine/forwarder.h"
#include "machine/gate.h"
#include "machine/machine.h"
#include "machine/said.h"
#include "machine/spec.h"

enum {
	TEND_MS = 2000,
	SOON_MS = 600,   /* for a guest to end in, when we have to */
	ALARM_MS = 900,  /* for ourselves */
	GRACE_MS = 1000, /* for programs of the host's, when there is time */
	MAX_LOG_BYTES = 16 << 20,
	NUM_SAID = BACKEND_MAX_SAID + 1,
	PARTS = 6, /* that are polled beside what the machine's parts print */
};

struct supervisor {
	struct state_dirs dirs;
	struct machine_spec spec;
	char *dir;
	char token[65];
	int lock_fd, listen_fd, forward_fd, log_fd, ending_fd;
	struct forwarder forwarder; /* zero: none */
	struct gate gate;
	struct broker_watch broker;
	struct said said; /* what gate and forwarder print */
	int say_fd;       /* the end that they get */
	const struct backend *ops;
	void *state;
	int ended_fd;
	int64_t end_ms; /* when the machine is ended by force; 0: it has not been asked to end */
	bool in_haste;
};

/* What the machine cannot do without is there. */
static int look_at_spec(const struct machine_spec *spec, struct pil_err *err)
{
	if (spec->folder && !path_exists(spec->folder)) {
		pil_err_hint(err,
			     "put it back in its place; or, of a distribution, give it up: "
			     "pillion --unregister %s",
			     spec->name);
		return pil_err_set(err, ENOENT, "open the machine's tree '%s'", spec->folder);
	}
	for (int i = 0; i < spec->n_shares; i++) {
		const char *path = spec->shares[i].host;
		_auto_fd int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (fd < 0 && spec->shares[i].needed)
			return pil_err_set(err, errno, "folder '%s' of the host", path);
	}
	return 0;
}

static int take_lock(struct supervisor *s, struct pil_err *err)
{
	_auto_free char *lock = str_printf("%s/lock", s->dir);
	_auto_free char *pid_path = str_printf("%s/pid", s->dir);
	_auto_free char *pid = str_printf("%d\n", getpid());
	int ret;

	for (int try = 0; try < 5; try++) { /* the one before us may be removing the folder */
		ret = path_mkdirs(s->dir, 0700);
		if (ret)
			return pil_err_set(err, -ret, "make folder '%s'", s->dir);
		s->lock_fd = state_lock(lock, 300, err); /* machine_running() holds it briefly */
		if (s->lock_fd != -ENOENT)
			break;
	}
	if (s->lock_fd < 0)
		return s->lock_fd;
	ret = pil_write_file(pid_path, 0600, pid, strlen(pid));
	return ret ? pil_err_set(err, -ret, "write '%s'", pid_path) : 0;
}

/* Who holds the lock of the root announces what it does, then looks whether the machine runs; we
 * take the machine's lock, then look here.  So at least one of the two sees the other. */
static int refuse_while_worked_on(struct supervisor *s, struct pil_err *err)
{
	struct work work;

	if (!s->spec.lock || !work_find(s->spec.lock, &work) ||
	    strcmp(work.name, s->spec.name) != 0)
		return 0;
	pil_err_hint(err, "pillion --list -v shows when it is over");
	return pil_err_say(err, EBUSY,
			   "An install, uninstall, or conversion is in progress for this "
			   "distribution (%s).",
			   work.state);
}

static int listen_both(struct supervisor *s, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/agent.sock", s->dir);

	_auto_free char *forward = str_printf("%s/forward.sock", s->dir);

	s->listen_fd = unixsock_listen(path, 128, err);
	if (s->listen_fd < 0 || !s->spec.forward_ports)
		return s->listen_fd < 0 ? s->listen_fd : 0;
	s->forward_fd = unixsock_listen(forward, 128, err);
	return s->forward_fd < 0 ? s->forward_fd : 0;
}

/* What the machine's parts print goes to a file of its own; our standard output stays the caller's.
 */
static void open_log(struct supervisor *s)
{
	_auto_free char *path = str_printf("%s/machines/%s.log", s->dirs.runtime, s->spec.name);

	s->log_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (s->log_fd >= 0)
		dup2(s->log_fd, STDERR_FILENO);
}

/* What parts of a machine print goes there, as fast as their budgets allow. */
static void bound_log(const struct supervisor *s)
{
	struct stat st;

	if (fstat(s->log_fd, &st) == 0 && st.st_size > MAX_LOG_BYTES && ftruncate(s->log_fd, 0))
		log_dbg("cannot cut the log: %s", strerror(errno));
}

static int sooner(int a_ms, int b_ms)
{
	return a_ms < b_ms ? a_ms : b_ms;
}

static struct said *said_of(struct supervisor *s, int i)
{
	return i == BACKEND_MAX_SAID ? &s->said : s->ops->said(s->state, i);
}

/* Fills @p, NUM_SAID of them, with where parts print that are read now.  Milliseconds until
 * others are; 0: none are. */
static int poll_said(struct supervisor *s, struct pollfd *p)
{
	int least_ms = 0;

	for (int i = 0; i < NUM_SAID; i++) {
		const struct said *said = said_of(s, i);
		int rest_ms = said ? said_rest_ms(said) : 0;

		p[i] = (struct pollfd){.fd = said && !rest_ms ? said->read_fd : -1,
				       .events = POLLIN};
		if (rest_ms && (!least_ms || rest_ms < least_ms))
			least_ms = rest_ms;
	}
	return least_ms;
}

static void pass_on(struct supervisor *s, const struct pollfd *p)
{
	for (int i = 0; i < NUM_SAID; i++)
		if (p[i].revents)
			said_pass_on(said_of(s, i));
}

static int wait_ready(struct supervisor *s, int ready_fd, int64_t due_ms, struct pil_err *err)
{
	struct pollfd p[1 + NUM_SAID] = {{.fd = ready_fd, .events = POLLIN}};
	char c;

	do {
		int rest_ms = poll_said(s, p + 1), left_ms = loop_left_ms(due_ms);

		if (poll(p, ARRAY_SIZE(p), rest_ms ? sooner(rest_ms, left_ms) : left_ms) > 0)
			pass_on(s, p + 1);
	} while (!p[0].revents && loop_left_ms(due_ms));
	if (!p[0].revents)
		return pil_err_say(err, ETIMEDOUT, "no sign of its agent after %d s",
				   s->ops->ready_ms / 1000);
	if (read(ready_fd, &c, 1) != 1) {
		pil_err_hint(err, "see %s/machines/%s.log", s->dirs.runtime, s->spec.name);
		return pil_err_say(err, EIO, "it ended while starting");
	}
	return 0;
}

static void start_forwarder(struct supervisor *s, int announce_fd)
{
	_auto_free char *path = str_printf("%s/forward.sock", s->dir);

	forwarder_init(&s->forwarder, announce_fd, path, s->say_fd);
}

/* The gate, by which programs reach the broker, and the broker itself.  Programs can do without. */
static int offer_devices(struct supervisor *s, struct pil_err *err)
{
	struct pil_err broker_err = {0};
	int ret = gate_start(&s->gate, &s->dirs, s->spec.name, s->say_fd, err);

	if (!ret && broker_ensure(&s->dirs, &broker_err))
		log_warn("no devices in this machine: %s", broker_err.msg);
	return ret;
}

static int start(struct supervisor *s, int spec_fd, struct pil_err *err)
{
	_auto_fd int ready_fd = -1;
	struct backend_run run;
	int ret = spec_read(&s->spec, spec_fd, err);

	close(spec_fd);
	if (ret)
		return ret;
	s->dir = str_printf("%s/machines/%s", s->dirs.runtime, s->spec.name);
	ret = look_at_spec(&s->spec, err);
	if (!ret)
		ret = take_lock(s, err);
	if (!ret)
		ret = refuse_while_worked_on(s, err);
	if (!ret)
		ret = listen_both(s, err);
	if (!ret)
		ret = broker_token_create(&s->dirs, s->spec.name, s->token, err);
	if (ret)
		return ret;
	open_log(s);
	s->ending_fd = ending_open(&s->dirs, s->spec.name, err);
	if (s->ending_fd < 0)
		return s->ending_fd;
	ret = said_open(&s->said, "beside", &s->say_fd, err);
	if (!ret && s->spec.accelerators)
		ret = offer_devices(s, err);
	if (ret)
		return ret;
	s->ops = backend_choose(&s->dirs, s->spec.disk ? 2 : 1, err);
	if (!s->ops)
		return -ENOTSUP;
	run = (struct backend_run){.spec = &s->spec,
				   .dirs = &s->dirs,
				   .dir = s->dir,
				   .token = s->spec.accelerators ? s->token : NULL,
				   .listen_fd = s->listen_fd,
				   .forward_fd = s->forward_fd,
				   .report_fd = s->ending_fd,
				   .due_ms = loop_now_ms() + s->ops->ready_ms};
	s->ended_fd = s->ops->start(&s->state, &run, &ready_fd, err);
	if (s->ended_fd < 0)
		return s->ended_fd;
	ret = wait_ready(s, ready_fd, run.due_ms, err);
	pil_close_p(&s->listen_fd); /* the agent's now; when it is gone, connecting fails */
	pil_close_p(&s->forward_fd);
	if (!ret && s->spec.forward_ports)
		start_forwarder(s, pil_take_fd(&ready_fd));
	return ret;
}

/* Sees to it that all parts of a machine are there which it can go on without for a while. */
static void tend(struct supervisor *s)
{
	bound_log(s);
	if (s->ops->tend)
		s->ops->tend(s->state);
	forwarder_tend(&s->forwarder);
	gate_tend(&s->gate, true);
	if (s->spec.accelerators)
		broker_watch_tend(&s->broker, &s->dirs, true);
}

/* ---- the end ---- */

static int report_fd = -1;               /* of report.h */
static int term_fd = -1;                 /* an eventfd: SIGTERM or SIGINT has come */
static volatile sig_atomic_t is_serving; /* the machine runs */

static void on_term(int number)
{
	static const struct pil_err why = {ECANCELED, "it was told to end", ""};
	const struct itimerval due = {.it_value.tv_usec = ALARM_MS * 1000};
	const uint64_t one = 1;
	int saved = errno;

	(void)number;
	if (!is_serving) {
		report_send(report_fd, &why);
		_exit(EXIT_FAILURE);
	}
	setitimer(ITIMER_REAL, &due, NULL); /* nobody catches SIGALRM */
	if (write(term_fd, &one, sizeof(one)) < 0)
		_exit(EXIT_FAILURE);
	errno = saved;
}

/* A descriptor that SIGUSR1 is read from. */
static int catch_signals(void)
{
	const struct sigaction action = {.sa_handler = on_term};
	sigset_t set;

	term_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	if (term_fd < 0 || sigprocmask(SIG_BLOCK, &set, NULL) ||
	    sigaction(SIGTERM, &action, NULL) || sigaction(SIGINT, &action, NULL))
		return -errno;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void end_within(struct supervisor *s, int ms)
{
	int64_t due_ms = loop_now_ms() + ms;

	if (!s->end_ms)
		s->ops->ask_to_end(s->state);
	if (!s->end_ms || due_ms < s->end_ms)
		s->end_ms = due_ms;
}

static void hear_signals(struct supervisor *s, int signal_fd)
{
	struct signalfd_siginfo info;
	uint64_t count;

	if (read(signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		end_within(s, s->ops->polite_ms);
	if (read(term_fd, &count, sizeof(count)) != (ssize_t)sizeof(count))
		return;
	s->in_haste = true;
	end_within(s, SOON_MS);
}

static void serve_parts(struct supervisor *s, const struct pollfd *p)
{
	if (p[0].revents && !s->end_ms)
		forwarder_read(&s->forwarder);
	if (p[1].revents && !s->end_ms)
		gate_tend(&s->gate, false);
	if (p[2].revents && !s->end_ms)
		broker_watch_tend(&s->broker, &s->dirs, false);
}

/* Until the machine has ended, or is to be ended by force. */
static void watch(struct supervisor *s, int signal_fd)
{
	int64_t tend_ms = loop_now_ms() + TEND_MS;

	for (;;) {
		bool ends = s->end_ms != 0;
		int left_ms = loop_left_ms(ends ? s->end_ms : tend_ms);
		struct pollfd p[PARTS + NUM_SAID] = {
			{.fd = s->ended_fd, .events = POLLIN},
			{.fd = signal_fd, .events = POLLIN},
			{.fd = term_fd, .events = POLLIN},
			{.fd = !ends && s->forwarder.path ? s->forwarder.announce_fd : -1,
			 .events = POLLIN},
			{.fd = ends ? -1 : s->gate.control_fd, .events = POLLIN},
			{.fd = ends ? -1 : s->broker.fd, .events = POLLIN},
		};
		int rest_ms = poll_said(s, p + PARTS);
		int n = poll(p, ARRAY_SIZE(p), rest_ms ? sooner(rest_ms, left_ms) : left_ms);

		if ((n < 0 && errno != EINTR) || (n > 0 && p[0].revents) ||
		    (ends && loop_left_ms(s->end_ms) == 0))
			return;
		if (n > 0) {
			serve_parts(s, p + 3);
			pass_on(s, p + PARTS);
		}
		hear_signals(s, signal_fd);
		if (!s->end_ms && loop_left_ms(tend_ms) == 0) {
			tend(s);
			tend_ms = loop_now_ms() + TEND_MS;
		}
	}
}

/* The lock goes last: until then nobody else makes anything in the folder, and after that we
 * remove nothing but an empty folder. */
static void remove_dir(const struct supervisor *s)
{
	_auto_free char *lock = str_printf("%s/lock", s->dir);
	DIR *dir = opendir(s->dir);

	for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
		_auto_free char *path = str_printf("%s/%s", s->dir, e->d_name);

		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") &&
		    strcmp(e->d_name, "lock") && path_remove_tree(path))
			log_warn("cannot remove '%s'", path);
	}
	if (dir)
		closedir(dir);
	unlink(lock);
	rmdir(s->dir);
}

static void clean_up(struct supervisor *s)
{
	forwarder_finish(&s->forwarder);
	if (s->ops && s->state)
		s->ops->stop(s->state, s->in_haste ? 0 : GRACE_MS);
	gate_finish(&s->gate); /* after the guest: it may hold streams that others have, too */
	broker_watch_finish(&s->broker);
	said_finish(&s->said);
	pil_close_p(&s->say_fd);
	if (s->lock_fd >= 0)
		remove_dir(s);
	spec_finish(&s->spec);
	state_dirs_finish(&s->dirs);
	free(s->dir);
}

static bool take_options(int argc, char **argv, int *spec_fd)
{
	uint64_t fd;

	*spec_fd = -1;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (!str_to_u64(argv[i + 1], INT32_MAX, &fd))
			return false;
		if (!strcmp(argv[i], "--spec-fd"))
			*spec_fd = (int)fd;
		else if (!strcmp(argv[i], "--report-fd"))
			report_fd = (int)fd;
		else
			return false;
	}
	return argc % 2 == 1 && *spec_fd >= 0;
}

/* To who started us; by hand it is a person. */
static void say_why(const struct pil_err *err)
{
	report_send(report_fd, err);
	if (report_fd < 0)
		dprintf(STDOUT_FILENO, "pillion-machine: %s\n%s%s%s", err->msg,
			err->hint[0] ? "hint: " : "", err->hint, err->hint[0] ? "\n" : "");
	pil_close_p(&report_fd);
}

/* A machine is the same whoever starts it first.  What its starter may not have at all, neither may
 * the machine; nor can who is nice take that back without a privilege. */
static void have_own_defaults(void)
{
	static const struct {
		__rlimit_resource_t what;
		rlim_t soft;
	} limits[] = {
		{RLIMIT_AS, RLIM_INFINITY},    {RLIMIT_CORE, 0},
		{RLIMIT_CPU, RLIM_INFINITY},   {RLIMIT_DATA, RLIM_INFINITY},
		{RLIMIT_FSIZE, RLIM_INFINITY}, {RLIMIT_NOFILE, 1024},
		{RLIMIT_NPROC, RLIM_INFINITY}, {RLIMIT_STACK, 8 << 20},
	};

	umask(022);
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		struct rlimit limit;

		if (getrlimit(limits[i].what, &limit))
			continue;
		limit.rlim_cur = limits[i].soft < limit.rlim_max ? limits[i].soft : limit.rlim_max;
		if (setrlimit(limits[i].what, &limit))
			log_dbg("limit %d: %s", (int)limits[i].what, strerror(errno));
	}
	if (getpriority(PRIO_PROCESS, 0) != 0 && setpriority(PRIO_PROCESS, 0, 0))
		log_info("the machine has the nice value of who started it");
}

int main(int argc, char **argv)
{
	struct supervisor s = {.lock_fd = -1,
			       .listen_fd = -1,
			       .forward_fd = -1,
			       .log_fd = -1,
			       .ending_fd = -1,
			       .ended_fd = -1,
			       .gate.control_fd = -1,
			       .broker.fd = -1,
			       .said.read_fd = -1,
			       .say_fd = -1};
	struct pil_err err = {0};
	int ready_fd, signal_fd, spec_fd, ret;

	log_init("pillion-machine");
	if (!take_options(argc, argv, &spec_fd)) {
		log_err("usage: pillion-machine --spec-fd N [--report-fd M]");
		return EXIT_FAILURE;
	}
	have_own_defaults();
	ready_fd = daemon_detach(&err);
	if (ready_fd < 0)
		return EXIT_FAILURE;
	signal_fd = catch_signals();
	if (signal_fd < 0)
		return EXIT_FAILURE;
	ret = state_dirs_init(&s.dirs, &err);
	if (!ret)
		ret = start(&s, spec_fd, &err);
	if (ret == -EWOULDBLOCK) { /* the caller tries to connect again */
		poll(NULL, 0, 200);
		daemon_report(&ready_fd, MACHINE_EXIT_ANOTHER);
		return EXIT_SUCCESS;
	}
	if (ret) {
		say_why(&err);
		if (s.state) {
			end_within(&s, s.ops->polite_ms);
			watch(&s, signal_fd);
		}
		clean_up(&s);
		daemon_report(&ready_fd, EXIT_FAILURE);
		return EXIT_FAILURE;
	}
	pil_close_p(&report_fd);
	is_serving = 1; /* before it is said: a signal may follow at once */
	daemon_report(&ready_fd, EXIT_SUCCESS);
	dup2(STDERR_FILENO, STDOUT_FILENO); /* let go of the caller's */
	watch(&s, signal_fd);
	clean_up(&s);
	return EXIT_SUCCESS;
}
