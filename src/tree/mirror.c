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
#include "base/proc_output.h"
#include "base/str.h"

enum { ASK_MS = 60000 };
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

char *mirror_find(struct pil_err *err)
{
	char *const argv[] = {(char *)"apt-get",
			      (char *)"indextargets",
			      (char *)"--format",
			      (char *)"$(RELEASE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(REPO_URI)",
			      (char *)"Created-By: Packages",
			      NULL};
	_auto_free char *codename = host_codename();
	_auto_free char *targets = NULL;
	/* what a failing one printed serves nobody: no entry in it */
	int status = proc_output(argv, ASK_MS, &targets, err);
	char *mirror = status >= 0 && codename ? mirror_choose(targets, codename) : NULL;

	if (!mirror) {
		pil_err_say(err, ENOENT,
			    "find a Debian mirror: apt's configuration names none for '%s'",
			    codename ? codename : "this host");
		pil_err_hint(err, "add Debian's main archive to /etc/apt/sources.list and run: "
				  "sudo apt update");
	}
	return mirror;
}
