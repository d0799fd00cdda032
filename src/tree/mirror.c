/* SPDX-License-Identifier: Apache-2.0
 *
 * Asks apt which sources this host has (apt-get indextargets), and takes one that serves the
 * component main of the host's own release: Debian's, or the first without a name. */
#include "tree/mirror.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/proc.h"
#include "base/str.h"

enum { MAX_TARGETS = 1 << 20 };
enum { FIELD_RELEASE, FIELD_CODENAME, FIELD_COMPONENT, FIELD_ORIGIN, FIELD_URI, NUM_FIELDS };

static bool split(char *line, char **fields)
{
	for (int i = 0; i < NUM_FIELDS; i++) {
		fields[i] = strsep(&line, "|");
		if (!fields[i])
			return false;
	}
	return !line;
}

static bool is_address(const char *text)
{
	size_t scheme = strspn(text, "abcdefghijklmnopqrstuvwxyz+");

	return scheme > 0 && !strncmp(text + scheme, "://", 3) && !strpbrk(text, " \t\r\"");
}

char *mirror_choose(const char *targets, const char *codename)
{
	_auto_free char *copy = strdup(targets);
	char *rest = copy, *line, *fields[NUM_FIELDS], *unnamed = NULL;

	while ((line = strsep(&rest, "\n"))) {
		if (!split(line, fields) || strcmp(fields[FIELD_COMPONENT], "main") != 0 ||
		    !is_address(fields[FIELD_URI]) ||
		    (strcmp(fields[FIELD_RELEASE], codename) != 0 &&
		     strcmp(fields[FIELD_CODENAME], codename) != 0))
			continue;
		if (!strcmp(fields[FIELD_ORIGIN], "Debian"))
			return strdup(fields[FIELD_URI]);
		if (!fields[FIELD_ORIGIN][0] && !unnamed)
			unnamed = fields[FIELD_URI];
	}
	return unnamed ? strdup(unnamed) : NULL;
}

static char *host_codename(void)
{
	_auto_free char *text = NULL;
	const char *at;

	if (pil_read_file("/etc/os-release", 1 << 16, &text) < 0 ||
	    !(at = strstr(text, "\nVERSION_CODENAME=")))
		return NULL;
	at += strlen("\nVERSION_CODENAME=");
	at += *at == '"';
	return str_printf("%.*s", (int)strcspn(at, "\"\n"), at);
}

/* All that comes out of @fd, at most MAX_TARGETS bytes. */
static char *read_all_text(int fd)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	for (char buf[4096]; out && len < MAX_TARGETS;) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		fwrite(buf, 1, (size_t)n, out);
		fflush(out);
	}
	if (out)
		fclose(out);
	return text;
}

static char *capture(char *const *argv, struct pil_err *err)
{
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	_auto_free char *text = NULL;
	struct proc_opts opts = {.stdin_fd = -1, .stderr_fd = -1};
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC)) {
		pil_err_set(err, errno, "run '%s'", argv[0]);
		return NULL;
	}
	read_fd = fds[0];
	write_fd = opts.stdout_fd = fds[1];
	pid = proc_spawn(argv, &opts, err);
	if (pid < 0)
		return NULL;
	pil_close_p(&write_fd);
	text = read_all_text(read_fd);
	pil_close_p(&read_fd);
	if (proc_wait(pid, 60000) == -ETIMEDOUT)
		proc_stop(pid, 1000);
	return pil_take_ptr(&text); /* what a failing one printed serves nobody: no entry in it */
}

char *mirror_find(struct pil_err *err)
{
	char *const argv[] = {(char *)"apt-get",
			      (char *)"indextargets",
			      (char *)"--format",
			      (char *)"$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(REPO_URI)",
			      (char *)"Created-By: Packages",
			      NULL};
	_auto_free char *codename = host_codename();
	_auto_free char *targets = capture(argv, err);
	char *mirror = targets && codename ? mirror_choose(targets, codename) : NULL;

	if (!mirror) {
		pil_err_say(err, ENOENT,
			    "find a Debian mirror: apt's configuration names none for '%s'",
			    codename ? codename : "this host");
		pil_err_hint(err, "add Debian's main archive to /etc/apt/sources.list and run: "
				  "sudo apt update");
	}
	return mirror;
}
