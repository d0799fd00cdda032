/* SPDX-License-Identifier: Apache-2.0
 *
 * hostile -- runs inside a machine as root, and tries to get out of it.
 *
 *   hostile --list                  name, where it applies, "refused" or "harmless", a line per
 * case hostile [KEY=VALUE...] CASE...  runs these; "ns" or "kvm": all that apply there hostile
 * --use BOMB              takes a little of what that bomb takes all of hostile --self-test
 * [KEY=VALUE...]  all cases as root of the host, in a scratch world
 *
 * A line per case comes out: name, refused|allowed|odd|skipped, and why, with tabs in between.
 * "odd" is a failure that is not the expected one: nobody has thought about what it means.
 *
 * Theory of operation: each case runs in a child, so that what it changes of itself ends with it,
 * and is killed with its process group when its time is over. */
#include "hostile.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_TOLD = 16, CASE_SECONDS = 60 };

static const struct hostile_family *const families[] = {
	&hostile_mounts, &hostile_names,   &hostile_files,   &hostile_descriptors, &hostile_calls,
	&hostile_bombs,  &hostile_sockets, &hostile_machine, &hostile_virtio,
};
static char note[256];
static const char *told[MAX_TOLD];
static int n_told;

void hostile_note(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(note, sizeof(note), format, ap);
	va_end(ap);
	for (char *c = note; *c; c++)
		if ((unsigned char)*c < ' ')
			*c = '?';
}

int hostile_skip(const char *why)
{
	hostile_note("%s", why);
	return SKIPPED;
}

const char *hostile_told(const char *key)
{
	size_t len = strlen(key);

	for (int i = 0; i < n_told; i++)
		if (!strncmp(told[i], key, len) && told[i][len] == '=')
			return told[i] + len + 1;
	return NULL;
}

bool hostile_expects(const struct hostile_case *c, int error)
{
	for (size_t i = 0; i < ARRAY_SIZE(c->expected) && c->expected[i]; i++)
		if (c->expected[i] == error)
			return true;
	return false;
}

void hostile_hold(void)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	char c;

	if (write(STDOUT_FILENO, "holding\n", 8) != 8)
		return;
	if (poll(&p, 1, 1000 * CASE_SECONDS) > 0 && read(STDIN_FILENO, &c, 1) < 0)
		return;
}

static void say(const struct hostile_case *c, const char *verdict, const char *why)
{
	printf("%s\t%s\t%s%s%s\n", c->name, verdict, why, *note ? ": " : "", note);
	fflush(stdout);
}

static void report(const struct hostile_case *c, int result)
{
	if (result == SKIPPED)
		say(c, "skipped", "not tried");
	else if (result >= 0)
		say(c, "allowed", "0");
	else
		say(c, hostile_expects(c, -result) ? "refused" : "odd", strerrorname_np(-result));
}

static void run_case(const struct hostile_case *c)
{
	int status;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(CASE_SECONDS + 20);
		report(c, c->try(c));
		_exit(0);
	}
	if (child < 0) {
		say(c, "odd", "no process for it");
		return;
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	kill(-child, SIGKILL);
	if (WIFSIGNALED(status))
		say(c, hostile_expects(c, -WTERMSIG(status)) ? "refused" : "odd",
		    strsignal(WTERMSIG(status)));
}

static int for_all(const char *name, void (*function)(const struct hostile_case *c))
{
	int where = !strcmp(name, "ns") ? ON_NS : !strcmp(name, "kvm") ? ON_KVM : 0;
	int n = 0;

	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		for (int i = 0; i < families[f]->n; i++) {
			const struct hostile_case *c = &families[f]->cases[i];

			if (where ? !(c->where & where) : strcmp(name, c->name) && *name)
				continue;
			function(c);
			n++;
		}
	}
	return n;
}

static void list(const struct hostile_case *c)
{
	static const char *const where[] = {"", "ns", "kvm", "both"};

	printf("%s\t%s\t%s\n", c->name, where[c->where], c->expected[0] ? "refused" : "harmless");
}

static void run_refused(const struct hostile_case *c)
{
	if ((c->where & ON_NS) && c->expected[0])
		run_case(c);
}

/* What can only be harmless is not tried on the host itself. */
static int run_self_test(void)
{
	return for_all("", run_refused) ? 0 : 1;
}

int main(int argc, char **argv)
{
	bool self_test = argc > 1 && !strcmp(argv[1], "--self-test");
	int i = 1 + self_test;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 2 && !strcmp(argv[1], "--list"))
		return for_all("", list) ? 0 : 1;
	if (argc == 3 && !strcmp(argv[1], "--use"))
		return hostile_bomb_use(argv[2]);
	for (; i < argc && strchr(argv[i], '=') && n_told < MAX_TOLD; i++)
		told[n_told++] = argv[i];
	if (self_test)
		return hostile_self_test(run_self_test);
	for (; i < argc; i++) {
		if (!for_all(argv[i], run_case)) {
			fprintf(stderr, "hostile: no case '%s'\n", argv[i]);
			return 2;
		}
	}
	return 0;
}
