/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: everything here is best effort.  A distro may have a read-only /etc or lack
 * ldconfig; the machine starts all the same, and what failed is said on the console.
 *
 * A program finds the plugin by GGML_BACKEND_PATH.  Whoever starts programs in a clean environment
 * fills it from files of its own: login shells from profile.d; PAM, which is sudo, su, cron and
 * ssh, from /etc/environment; systemd from its configuration.  sudo's env_keep would do less, and
 * let who may run one program as root choose what that program loads.  PATH is for people, hence
 * for login shells: elsewhere it could only be replaced, not made longer. */
#include "guest/init/setup.h"

#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/exposed.h"
#include "agent/init_options.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "guest/init/wsl_conf.h"

/* ---- files ---- */

static void write_text(const char *path, const char *text)
{
	_auto_free char *old = NULL;
	int ret;

	if (pil_read_file(path, 1 << 16, &old) >= 0 && !strcmp(old, text))
		return;
	ret = pil_write_file(path, 0644, text, strlen(text));
	if (ret)
		log_warn("write %s: %s", path, strerror(-ret));
}

static void write_hosts(const char *hostname)
{
	_auto_free char *text = str_printf("127.0.0.1\tlocalhost\n127.0.1.1\t%s\n\n"
					   "::1\tip6-localhost ip6-loopback\n",
					   hostname);

	write_text("/etc/hosts", text);
}

static void write_resolv_conf(const char *text)
{
	struct stat st;

	/* A link points into a service that does not run here. */
	if (lstat("/etc/resolv.conf", &st) == 0 && S_ISLNK(st.st_mode))
		unlink("/etc/resolv.conf");
	write_text("/etc/resolv.conf", text);
}

static void run(const char *const *args, int timeout_ms)
{
	_auto_argv struct argv a = {0};
	struct proc_opts opts = {.stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
	struct pil_err err = {0};
	pid_t pid;
	int status;

	argv_add_all(&a, args);
	pid = proc_spawn(a.v, &opts, &err);
	if (pid < 0) {
		log_warn("%s", err.msg);
		return;
	}
	status = proc_wait(pid, timeout_ms);
	if (status)
		log_warn("%s: status %d", args[0], status);
	if (status == -ETIMEDOUT)
		proc_stop(pid, 100);
}

/* ---- telling programs of the plugins ---- */

/* Files of our own; each is for who has @folder.  A line for each plugin. */
static const struct {
	const char *folder, *dir, *path, *before, *line, *after; /* @line, then the setting */
} settings[] = {
	{"/etc/profile.d", "/etc/profile.d", "/etc/profile.d/pillion.sh", "", "export ",
	 "case :$PATH: in *:" EXPOSED_BIN ":*) ;; *) PATH=$PATH:" EXPOSED_MORE_PATH " ;; esac\n"},
	{"/etc/systemd", "/etc/systemd/system.conf.d", "/etc/systemd/system.conf.d/pillion.conf",
	 "[Manager]\n", "DefaultEnvironment=", ""},
};

/* Heap. */
static char *text_of(size_t i)
{
	char *text = str_printf("# Written by pillion at each start.\n%s", settings[i].before);

	for (size_t e = 0; e <= EXPOSED_NUM; e++) {
		char *less = text;

		text = e < EXPOSED_NUM
			       ? str_printf("%s%s%s\n", less, settings[i].line, exposed[e].setting)
			       : str_printf("%s%s", less, settings[i].after);
		free(less);
	}
	return text;
}

static void write_settings(bool wanted)
{
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		_auto_free char *text = NULL;

		if (!wanted) {
			unlink(settings[i].path);
			continue;
		}
		if (!path_exists(settings[i].folder))
			continue;
		text = text_of(i);
		mkdir(settings[i].dir, 0755);
		write_text(settings[i].path, text);
	}
}

/* The plugin whose variable @line sets; NULL: none. */
static const struct exposed *set_by(const char *line)
{
	for (size_t e = 0; e < EXPOSED_NUM; e++) {
		size_t len = strlen(exposed[e].variable);

		if (!strncmp(line, exposed[e].variable, len) && line[len] == '=')
			return &exposed[e];
	}
	return NULL;
}

char *setup_environment(const char *old, bool wanted)
{
	bool chosen[EXPOSED_NUM] = {0}; /* by the user: that stays the only one */
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		abort();
	while (*old) {
		const struct exposed *e = set_by(old);
		size_t len = strcspn(old, "\n");

		if (!e || len != strlen(e->setting) || strncmp(old, e->setting, len)) {
			fprintf(out, "%.*s\n", (int)len, old);
			if (e)
				chosen[e - exposed] = true;
		}
		old += len + (old[len] == '\n');
	}
	for (size_t e = 0; e < EXPOSED_NUM; e++)
		if (wanted && !chosen[e])
			fprintf(out, "%s\n", exposed[e].setting);
	if (fclose(out))
		abort();
	return text;
}

/* This file is the user's; it is read by lines, and we have one of them. */
static void edit_environment(bool wanted)
{
	static const char path[] = "/etc/environment";
	_auto_free char *old = NULL;
	_auto_free char *text = NULL;
	struct stat st = {.st_mode = S_IFREG | 0644};
	bool there = lstat(path, &st) == 0;
	ssize_t len = 0;
	int ret;

	if (!there && !wanted)
		return;
	if (there)
		len = S_ISREG(st.st_mode) ? pil_read_file(path, 1 << 16, &old) : -EINVAL;
	if (len < 0 || (there && strlen(old) != (size_t)len)) {
		log_warn("%s is no text that could be added to: it stays as it is", path);
		return;
	}
	text = setup_environment(old ? old : "", wanted);
	if (old && !strcmp(old, text))
		return;
	ret = pil_write_file(path, st.st_mode & 07777, text, strlen(text));
	if (ret)
		log_warn("write %s: %s", path, strerror(-ret));
}

void setup_variables(bool wanted)
{
	for (size_t e = 0; e < EXPOSED_NUM; e++)
		if (wanted)
			setenv(exposed[e].variable, exposed[e].place, 1);
		else
			unsetenv(exposed[e].variable);
}

static void expose_libraries(const struct wsl_conf *conf)
{
	if (!conf->gpu_enabled || !conf->gpu_append_lib_path)
		unlink("/etc/ld.so.conf.d/ld.wsl.conf");
	write_settings(conf->gpu_enabled);
	edit_environment(conf->gpu_enabled);
	setup_variables(conf->gpu_enabled);
	if (!conf->gpu_enabled)
		return;
	setenv("PATH", EXPOSED_PLAIN_PATH ":" EXPOSED_MORE_PATH, 1);
	if (!conf->gpu_append_lib_path || !path_exists("/etc/ld.so.conf.d"))
		return;
	if (!path_exists("/etc/ld.so.conf.d/ld.wsl.conf")) {
		write_text("/etc/ld.so.conf.d/ld.wsl.conf", EXPOSED_WSL_LIB "\n");
		run((const char *const[]){"ldconfig", NULL}, 10000);
	}
}

void setup_ollama(const struct wsl_conf *conf)
{
	static const char *const prefixes[] = {"/usr/local/lib/ollama", "/usr/lib/ollama",
					       "/opt/ollama/lib/ollama"};

	for (size_t i = 0; conf->gpu_enabled && i < ARRAY_SIZE(prefixes); i++) {
		_auto_free char *dir = str_printf("%s/pillion", prefixes[i]);
		_auto_free char *link = str_printf("%s/%s", dir, exposed[EXPOSED_ggml].plugin);
		struct stat st;

		if (!path_exists(prefixes[i]) || lstat(link, &st) == 0)
			continue;
		if ((mkdir(dir, 0755) && errno != EEXIST) ||
		    symlink(exposed[EXPOSED_ggml].place, link))
			log_warn("link %s: %s", link, strerror(errno));
	}
}

static void bring_up_loopback(void)
{
	_auto_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq r = {.ifr_name = "lo"};

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &r))
		return;
	r.ifr_flags |= IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &r))
		log_dbg("lo: %s", strerror(errno));
}

/* Not waited for: it may be a service that stays.  It ends with the machine. */
void setup_start_boot_command(const struct wsl_conf *conf)
{
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)conf->boot_command, NULL};
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = -1,
				 .stderr_fd = -1,
				 .new_session = true};
	struct pil_err err = {0};

	if (conf->boot_command[0] && proc_spawn(argv, &opts, &err) < 0)
		log_warn("[boot] command: %s", err.msg);
}

/* Folders of /run that programs expect, which systemd would make. */
static void make_run(void)
{
	if (mkdir("/run/lock", 0777) == 0 && chmod("/run/lock", 01777))
		log_warn("make /run/lock: %s", strerror(errno));
	if (mkdir("/run/user", 0755) && errno != EEXIST)
		log_warn("make /run/user: %s", strerror(errno));
}

void setup_user(uid_t uid, gid_t gid)
{
	_auto_free char *path = str_printf("/run/user/%u", uid);

	if (mkdir(path, 0700) == 0 && lchown(path, uid, gid))
		log_warn("own %s: %s", path, strerror(errno));
}

static void read_conf(struct wsl_conf *conf, const char *hostname)
{
	_auto_free char *text = NULL;
	const char *line;

	wsl_conf_parse(pil_read_file("/etc/wsl.conf", 1 << 16, &text) >= 0 ? text : "", conf);
	for (line = conf->complaints; *line; line += strcspn(line, "\n") + 1)
		log_warn("/etc/wsl.conf: %.*s", (int)strcspn(line, "\n"), line);
	if (!conf->hostname[0])
		snprintf(conf->hostname, sizeof(conf->hostname), "%s", hostname);
}

/* That of [boot] command and of the services it starts. */
static void set_own_environment(void)
{
	clearenv();
	setenv("PATH", EXPOSED_PLAIN_PATH, 1);
	setenv("HOME", "/root", 1);
}

void setup_machine(struct wsl_conf *conf, const struct init_options *o)
{
	set_own_environment();
	read_conf(conf, o->distro);
	if (o->no_devices)
		conf->gpu_enabled = false;
	if (sethostname(conf->hostname, strlen(conf->hostname)))
		log_warn("set the host name: %s", strerror(errno));
	bring_up_loopback();
	make_run();
	if (conf->generate_hosts)
		write_hosts(conf->hostname);
	if (conf->generate_resolv && o->resolv_conf)
		write_resolv_conf(o->resolv_conf);
	expose_libraries(conf);
	setup_ollama(conf);
}
