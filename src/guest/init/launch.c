/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: each of the command's streams is the terminal or a pipe, as the client's is.
 * Where any of them is the terminal it is the controlling one, so that programs find it as /dev/tty
 * whatever their streams are.  It starts with the settings that the client's terminal has.
 *
 * What goes wrong between fork() and execve() the child says on its standard error, as a shell
 * would, and ends with the status a shell would give. */
#include "guest/init/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "guest/init/environment.h"
#include "base/fd.h"
#include "guest/init/guest_session.h"
#include "base/log.h"
#include "base/str.h"

enum { NOT_STARTED = 126, NOT_FOUND = 127 };

/* ---- the command's side ---- */

/* For shells that know no "$@": a line in which each word is quoted. */
static char *quoted_line(const char *const *args)
{
	char *line = NULL;
	size_t size;
	FILE *out = open_memstream(&line, &size);

	if (!out)
		return NULL;
	for (; *args; args++) {
		fputc('\'', out);
		for (const char *p = *args; *p; p++)
			fputs(*p == '\'' ? "'\\''" : (char[]){*p, '\0'}, out);
		fputs(args[1] ? "' " : "'", out);
	}
	return fclose(out) ? NULL : line;
}

static bool is_bourne(const char *shell)
{
	size_t len = strlen(shell);

	return !(len >= 3 && !strcmp(shell + len - 3, "csh")) && strcmp(shell, "fish") != 0;
}

static PIL_NORETURN void not_started(const char *file)
{
	int code = errno;

	dprintf(STDERR_FILENO, "pillion: run '%s': %s\n", file, strerror(code));
	_exit(code == ENOENT ? NOT_FOUND : NOT_STARTED);
}

static PIL_NORETURN void exec_shell(const struct launch *l)
{
	const char **args = l->request.args;
	const char *base = strrchr(l->user.shell, '/'), *name = base ? base + 1 : l->user.shell;
	bool login = l->request.start.flags & AGENT_START_LOGIN;
	_auto_free char *login_name = str_printf("%s%.250s", login ? "-" : "", name);
	_auto_free const char **argv = calloc(l->request.start.n_args + 5, sizeof(*argv));
	size_t n = 0;

	if (!argv)
		_exit(NOT_STARTED);
	argv[n++] = login_name;
	if (args[0])
		argv[n++] = "-c";
	if (args[0] && !args[1]) {
		argv[n++] = args[0];
	} else if (args[0] && is_bourne(name)) {
		argv[n++] = "\"$@\"";
		argv[n++] = name;
		while (*args)
			argv[n++] = *args++;
	} else if (args[0]) {
		argv[n++] = quoted_line(args);
	}
	execv(l->user.shell, (char *const *)argv);
	not_started(l->user.shell);
}

/* Where it starts: what was asked for, or it does not; else the home, if it is there.  ?FOLDER is
 * taken if it is there. */
static void go_to_folder(const struct launch *l)
{
	bool asked_for = l->request.cwd[0] && l->request.cwd[0] != '?';
	const char *cwd = l->request.cwd + (l->request.cwd[0] == '?');
	bool in_home = cwd[0] == '~' && (cwd[1] == '/' || !cwd[1]);
	_auto_free char *path = in_home ? str_printf("%s%s", l->user.home, cwd + 1) : strdup(cwd);

	if (cwd[0] && path && chdir(path) == 0)
		return;
	if (asked_for) {
		dprintf(STDERR_FILENO, "pillion: go to folder '%s': %s\n", path ? path : cwd,
			strerror(errno));
		_exit(EXIT_FAILURE);
	}
	if (chdir(l->user.home) && chdir("/"))
		_exit(NOT_STARTED);
}

static PIL_NORETURN void run_command(const struct launch *l, const struct guest *guest)
{
	sigset_t none;

	sigemptyset(&none);
	for (int sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	if (l->slave_fd >= 0)
		ioctl(l->slave_fd, TIOCSCTTY, 0);
	for (int i = 0; i < 3; i++)
		dup2(l->command_fds[i], i);
	environment_set(guest, &l->user, l->request.env);
	if (setgroups((size_t)l->user.n_groups, l->user.groups) || setgid(l->user.gid) ||
	    setuid(l->user.uid))
		_exit(NOT_STARTED);
	go_to_folder(l);
	if (l->request.start.flags & AGENT_START_SHELL)
		exec_shell(l);
	execvp(l->request.args[0], (char *const *)l->request.args);
	not_started(l->request.args[0]);
}

/* ---- our side ---- */

void launch_init(struct launch *l)
{
	*l = (struct launch){.terminal_fd = -1,
			     .in_fd = -1,
			     .out_fd = -1,
			     .err_fd = -1,
			     .command_fds = {-1, -1, -1},
			     .slave_fd = -1};
}

/* A terminal that was asked for with no settings gets the kernel's. */
static void set_termios(int fd, const struct agent_termios *from)
{
	struct termios to;

	if (!(from->iflag | from->oflag | from->cflag | from->lflag) || tcgetattr(fd, &to))
		return;
	to.c_iflag = from->iflag;
	to.c_oflag = from->oflag;
	to.c_cflag = from->cflag;
	to.c_lflag = from->lflag;
	memcpy(to.c_cc, from->cc, sizeof(from->cc) - 1);
	if (tcsetattr(fd, TCSANOW, &to))
		log_dbg("settings of a terminal: %s", strerror(errno));
}

static int open_terminal(struct launch *l)
{
	const struct agent_winsize *w = &l->request.start.winsize;
	struct winsize size = {w->rows, w->cols, w->width, w->height};
	struct stat st;

	if (openpty(&l->terminal_fd, &l->slave_fd, NULL, NULL, &size))
		return -errno;
	set_termios(l->slave_fd, &l->request.start.termios);
	if (fchown(l->slave_fd, l->user.uid, (gid_t)-1))
		log_dbg("own the terminal: %s", strerror(errno));
	if (fstat(l->slave_fd, &st) == 0)
		l->tty = st.st_rdev;
	fcntl(l->terminal_fd, F_SETFD, FD_CLOEXEC);
	fcntl(l->slave_fd, F_SETFD, FD_CLOEXEC);
	return 0;
}

/* The command's stream @i becomes the terminal, or a pipe, of which @ours is the other end. */
static int open_stream(struct launch *l, int i, bool is_tty, int *ours)
{
	int pipe_fds[2], command_end = i == STDIN_FILENO ? 0 : 1;

	if (is_tty) {
		l->command_fds[i] = fcntl(l->slave_fd, F_DUPFD_CLOEXEC, 0);
		return l->command_fds[i] < 0 ? -errno : 0;
	}
	if (pipe2(pipe_fds, O_CLOEXEC))
		return -errno;
	l->command_fds[i] = pipe_fds[command_end];
	*ours = pipe_fds[!command_end];
	return pil_set_nonblock(*ours, true);
}

static int open_streams(struct launch *l)
{
	unsigned flags = l->request.start.flags;
	int ret = flags & AGENT_START_TTYS ? open_terminal(l) : 0;

	if (!ret && l->terminal_fd >= 0)
		ret = pil_set_nonblock(l->terminal_fd, true);
	if (!ret)
		ret = open_stream(l, STDIN_FILENO, flags & AGENT_START_TTY_IN, &l->in_fd);
	if (!ret)
		ret = open_stream(l, STDOUT_FILENO, flags & AGENT_START_TTY_OUT, &l->out_fd);
	if (ret)
		return ret;
	if (!(flags & AGENT_START_ONE_OUT))
		return open_stream(l, STDERR_FILENO, flags & AGENT_START_TTY_ERR, &l->err_fd);
	l->command_fds[STDERR_FILENO] = fcntl(l->command_fds[STDOUT_FILENO], F_DUPFD_CLOEXEC, 0);
	return l->command_fds[STDERR_FILENO] < 0 ? -errno : 0;
}

static void close_commands(struct launch *l)
{
	for (int i = 0; i < 3; i++)
		pil_close_p(&l->command_fds[i]);
	pil_close_p(&l->slave_fd);
}

pid_t launch_start(struct launch *l, const struct guest *guest)
{
	int ret = open_streams(l);
	pid_t pid = ret ? ret : fork();

	if (pid == 0)
		run_command(l, guest);
	if (!ret && pid < 0)
		pid = -errno;
	close_commands(l);
	return pid;
}

void launch_finish(struct launch *l)
{
	close_commands(l);
	pil_close_p(&l->terminal_fd);
	pil_close_p(&l->in_fd);
	pil_close_p(&l->out_fd);
	pil_close_p(&l->err_fd);
}
