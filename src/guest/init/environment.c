/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the machine's own settings first, then what the client passes on.  A type of
 * terminal or a locale that the machine does not know makes programs complain or draw nonsense, so
 * what merely comes along from outside gives way to one that every distribution has.
 *
 * glibc keeps locales in folders, or in one archive, whose table of names is searched here as
 * glibc's localedef writes it.  musl has none to know. */
#include "guest/init/environment.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "agent/exposed.h"
#include "base/fd.h"
#include "guest/init/guest_session.h"
#include "guest/init/passwd.h"
#include "guest/init/setup.h"
#include "base/path.h"
#include "base/str.h"

#define PEOPLES_PATH EXPOSED_PLAIN_PATH ":/usr/games:/usr/local/games"

enum { ARCHIVE_MAGIC = (int)0xde020109, MAX_NAMES_BYTES = 4 << 20, MAX_NAME = 64 };

/* One step of a path, with nothing in it that a name of this kind has not. */
static bool is_plain(const char *name)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				  "-_.+@");

	return len && len < MAX_NAME && !name[len] && name[0] != '.';
}

bool environment_has_term(const char *root, const char *term)
{
	static const char *const folders[] = {"/etc/terminfo", "/lib/terminfo",
					      "/usr/share/terminfo", "/usr/lib/terminfo"};

	for (size_t i = 0; is_plain(term) && i < ARRAY_SIZE(folders); i++) {
		_auto_free char *path = str_printf("%s%s/%c/%s", root, folders[i], term[0], term);
		_auto_free char *hex =
			str_printf("%s%s/%02x/%s", root, folders[i], (unsigned char)term[0], term);

		if (path_exists(path) || path_exists(hex))
			return true;
	}
	return false;
}

/* de_DE.UTF-8@euro becomes de_DE.utf8@euro, as glibc stores it. */
static void normalize(const char *name, char out[MAX_NAME])
{
	bool in_codeset = false;
	size_t n = 0;

	for (const char *p = name; *p && n < MAX_NAME - 1; p++) {
		if (*p == '@')
			in_codeset = false;
		if (!in_codeset)
			out[n++] = *p;
		else if (isalnum((unsigned char)*p))
			out[n++] = (char)tolower((unsigned char)*p);
		if (*p == '.')
			in_codeset = true;
	}
	out[n] = '\0';
}

static bool in_archive(const char *root, const char *name)
{
	_auto_free char *path = str_printf("%s/usr/lib/locale/locale-archive", root);
	_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	uint32_t
		head[8]; /* magic, serial, names: offset, used, size; strings: offset, used, size */
	_auto_free char *names = NULL;
	size_t len = strlen(name) + 1;
	ssize_t n;

	if (fd < 0 || pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
	    head[0] != (uint32_t)ARCHIVE_MAGIC || head[6] > MAX_NAMES_BYTES)
		return false;
	names = malloc(head[6] + 1u);
	n = names ? pread(fd, names + 1, head[6], head[5]) : -1;
	if (n <= 0)
		return false;
	names[0] = '\0';
	for (char *at = names; (at = memmem(at, (size_t)(names + 1 + n - at), name, len)); at++)
		if (at > names && at[-1] == '\0')
			return true;
	return false;
}

bool environment_has_locale(const char *root, const char *name)
{
	static const char *const always[] = {"C", "POSIX", "C.UTF-8", "C.utf8"};
	_auto_free char *folder = NULL;
	_auto_free char *musl = str_printf("%s/lib/ld-musl-x86_64.so.1", root);
	char normal[MAX_NAME];

	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		if (!strcmp(name, always[i]))
			return true;
	if (!is_plain(name))
		return false;
	normalize(name, normal);
	folder = str_printf("%s/usr/lib/locale/%s", root, normal);
	return path_exists(folder) || path_exists(musl) || in_archive(root, normal);
}

/* ?NAME=VALUE: comes along. */
static void set_if_fitting(const char *setting)
{
	const char *value = strchr(setting, '=') + 1;
	_auto_free char *name = str_printf("%.*s", (int)(value - 1 - setting), setting);

	if (!strcmp(name, "TERM"))
		setenv(name, environment_has_term("", value) ? value : "xterm-256color", 1);
	else if (strcmp(name, "LANG") && strncmp(name, "LC_", 3))
		setenv(name, value, 0);
	else if (environment_has_locale("", value))
		setenv(name, value, 1);
}

static bool is_setting(const char *text)
{
	return strchr(text, '=') && text[0] != '=';
}

void environment_set(const struct guest *guest, const struct user *user, const char *const *wanted)
{
	_auto_free char *runtime = str_printf("/run/user/%u", user->uid);
	bool expose = guest->conf.gpu_enabled;

	clearenv();
	setenv("LANG", "C.UTF-8", 1);
	setenv("PATH", expose ? PEOPLES_PATH ":" EXPOSED_MORE_PATH : PEOPLES_PATH, 1);
	setenv("HOME", user->home, 1);
	setenv("USER", user->name, 1);
	setenv("LOGNAME", user->name, 1);
	setenv("SHELL", user->shell, 1);
	setenv("XDG_RUNTIME_DIR", runtime, 1);
	setenv("WSL_DISTRO_NAME", guest->distro, 1);
	setup_variables(expose);
	for (const char *const *e = guest->env; e && *e; e++)
		putenv((char *)*e);
	for (; *wanted; wanted++) {
		if (**wanted == '?' && is_setting(*wanted + 1))
			set_if_fitting(*wanted + 1);
		else if (is_setting(*wanted))
			putenv((char *)*wanted);
	}
}
