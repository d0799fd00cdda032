/* SPDX-License-Identifier: Apache-2.0 */
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fd.h"
#include "loop.h"
#include "path.h"
#include "proc.h"
#include "str.h"
#include "userns.h"

enum { BUILD_TIMEOUT_MS = 30 * 60 * 1000, UNPACK_TIMEOUT_MS = 10 * 60 * 1000 };

/* ---- the mirror ---- */

char *mirror_choose(const char *targets, const char *codename)
{
	_auto_free char *copy = strdup(targets);
	char *save = NULL;

	for (char *line = copy ? strtok_r(copy, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		char release[128], component[128], uri[512];

		if (sscanf(line, "%127s %127s %511s", release, component, uri) == 3 &&
		    !strcmp(release, codename) && !strcmp(component, "main") &&
		    strspn(uri, "abcdefghijklmnopqrstuvwxyz") > 0 && strstr(uri, "://"))
			return strdup(uri);
	}
	return NULL;
}

static char *host_codename(void)
{
	_auto_free char *text = NULL;
	const char *at;

	if (pil_read_file("/etc/os-release", 1 << 16, &text) < 0 ||
	    !(at = strstr(text, "\nVERSION_CODENAME=")))
		return NULL;
	at += strlen("\nVERSION_CODENAME=");
	return str_printf("%.*s", (int)strcspn(at, "\n"), at + (*at == '"'));
}

/* Runs @argv and returns what it prints, at most 1 MiB; NULL on failure. */
static char *capture(char *const *argv, struct pil_err *err)
{
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	struct proc_opts opts = {.stdin_fd = -1, .stderr_fd = -1};
	int fds[2];
	char *text = NULL;
	size_t len = 0;
	FILE *out;
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
	out = open_memstream(&text, &len);
	for (char buf[4096]; out && len < 1 << 20;) {
		ssize_t n = read(read_fd, buf, sizeof(buf));

		if (n <= 0)
			break;
		fwrite(buf, 1, (size_t)n, out);
		fflush(out);
	}
	if (out)
		fclose(out);
	if (proc_wait(pid, 60000) != 0) {
		pil_err_say(err, EIO, "run '%s': it failed", argv[0]);
		free(text);
		return NULL;
	}
	return text;
}

static char *find_mirror(struct pil_err *err)
{
	char *const argv[] = {(char *)"apt-get",
			      (char *)"indextargets",
			      (char *)"--format",
			      (char *)"$(RELEASE) $(COMPONENT) $(REPO_URI)",
			      (char *)"Created-By: Packages",
			      NULL};
	_auto_free char *codename = host_codename();
	_auto_free char *targets = capture(argv, err);
	char *mirror = targets && codename ? mirror_choose(targets, codename) : NULL;

	if (!mirror) {
		pil_err_hint(err, "add Debian's main archive to /etc/apt/sources.list and run: "
				  "sudo apt update");
		pil_err_say(err, ENOENT,
			    "find a Debian mirror: apt's configuration names none for '%s'",
			    codename ? codename : "this host");
	}
	return mirror;
}

/* ---- building the archive ---- */

static void add_build_options(struct argv *a, const struct recipe *recipe, bool expired_ok)
{
	argv_add_all(a, (const char *const[]){"mmdebstrap", "--variant=apt", "--format=tar", NULL});
	argv_addf(a, "--include=%s", recipe->packages);
	argv_add_all(a, (const char *const[]){"--aptopt=APT::Install-Recommends \"false\"",
					      "--aptopt=Acquire::Retries \"3\"",
					      "--aptopt=Acquire::Languages \"none\"",
					      "--dpkgopt=force-unsafe-io", NULL});
	if (recipe->slim)
		argv_add_all(a, (const char *const[]){
					"--dpkgopt=path-exclude=/usr/share/man/*",
					"--dpkgopt=path-exclude=/usr/share/locale/*",
					"--dpkgopt=path-exclude=/usr/share/doc/*",
					"--dpkgopt=path-include=/usr/share/doc/*/copyright", NULL});
	if (expired_ok)
		argv_add(a, "--aptopt=Acquire::Check-Valid-Until \"false\"");
}

/* One run of mmdebstrap; what it says goes to the terminal and to @log_path. */
static int run_build(const struct recipe *recipe, const char *mirror, const char *tar_path,
		     const char *log_path, bool expired_ok, struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	_auto_argv struct argv tee = {0};
	_auto_fd int tee_in = -1;
	_auto_fd int build_err = -1;
	struct proc_opts opts = {.stdin_fd = -1, .stdout_fd = STDERR_FILENO};
	int fds[2], status;
	pid_t tee_pid, pid;

	add_build_options(&a, recipe, expired_ok);
	argv_add_all(&a, (const char *const[]){recipe->suite, tar_path, NULL});
	argv_addf(&a, "deb %s %s main", mirror, recipe->suite);
	if (pipe2(fds, O_CLOEXEC))
		return pil_err_set(err, errno, "run mmdebstrap");
	tee_in = fds[0];
	build_err = fds[1];
	argv_add_all(&tee, (const char *const[]){"tee", log_path, NULL});
	tee_pid = proc_spawn(tee.v,
			     &(struct proc_opts){.stdin_fd = tee_in,
						 .stdout_fd = STDERR_FILENO,
						 .stderr_fd = -1},
			     err);
	if (tee_pid < 0)
		return tee_pid;
	opts.stderr_fd = build_err;
	pid = proc_spawn(a.v, &opts, err);
	pil_close_p(&build_err);
	if (pid < 0) {
		proc_stop(tee_pid, 100);
		pil_err_hint(err, "sudo apt install mmdebstrap");
		return pid;
	}
	status = proc_wait(pid, BUILD_TIMEOUT_MS);
	if (status == -ETIMEDOUT)
		proc_stop(pid, 5000);
	proc_wait(tee_pid, 2000);
	return status;
}

static bool log_says(const char *log_path, const char *what)
{
	_auto_free char *text = NULL;

	return pil_read_file(log_path, 16 << 20, &text) > 0 && strstr(text, what);
}

static int explain_build_failure(const struct recipe *recipe, const char *log_path, int status,
				 struct pil_err *err)
{
	if (log_says(log_path, "No space left"))
		return pil_err_say(err, ENOSPC, "make %s: the disk is full", recipe->title);
	if (log_says(log_path, "Temporary failure resolving") ||
	    log_says(log_path, "Could not connect") ||
	    log_says(log_path, "Network is unreachable") ||
	    log_says(log_path, "Could not resolve")) {
		pil_err_hint(err, "check the network, then run the same command again");
		return pil_err_say(err, ENETUNREACH, "make %s: the Debian mirror cannot be reached",
				   recipe->title);
	}
	pil_err_hint(err, "the whole report is in %s", log_path);
	return pil_err_say(err, EIO, "make %s: mmdebstrap failed with status %d", recipe->title,
			   status);
}

static int build_archive(const struct state_dirs *dirs, const struct recipe *recipe,
			 const char *tar_path, struct pil_err *err)
{
	_auto_free char *mirror = find_mirror(err);
	_auto_free char *part = str_printf("%s.part.tar.zst", tar_path);
	_auto_free char *log_path = str_printf("%s/mmdebstrap.log", dirs->cache);
	static bool expired_ok; /* an index found expired is not asked for twice */
	int status;

	if (!mirror)
		return -ENOENT;
	fprintf(stderr, "Fetching %s ...\n", recipe->title);
	status = run_build(recipe, mirror, part, log_path, expired_ok, err);
	if (status > 0 && !expired_ok && (log_says(log_path, "is expired") || log_says(log_path, "Valid-Until"))) {
		fprintf(stderr, "The mirror's index is past its date of validity; trusting its "
				"signature alone "
				"here.\n");
		expired_ok = true;
		status = run_build(recipe, mirror, part, log_path, true, err);
	}
	if (status) {
		unlink(part);
		return status < 0 && err && err->code
			       ? status
			       : explain_build_failure(recipe, log_path, status, err);
	}
	return rename(part, tar_path) ? pil_err_set(err, errno, "store '%s'", tar_path) : 0;
}

/* ---- unpacking ---- */

/* Waits for @pid and shows that it lives: a line on a terminal, nothing elsewhere. */
static int wait_with_progress(pid_t pid, int fd, const char *what, int timeout_ms)
{
	int64_t start = loop_now_ms();
	bool tty = isatty(STDERR_FILENO);
	struct stat st = {0};
	int status;

	if (fstat(fd, &st) || st.st_size == 0)
		st.st_size = 1;
	while ((status = proc_wait(pid, 200)) == -ETIMEDOUT && loop_now_ms() - start < timeout_ms)
		if (tty)
			fprintf(stderr, "\rUnpacking %s: %3d %%", what,
				(int)(100 * lseek(fd, 0, SEEK_CUR) / st.st_size));
	if (tty)
		fprintf(stderr, "\r\033[K");
	if (status == -ETIMEDOUT)
		proc_stop(pid, 1000);
	return status;
}

static int unpack(const char *tar_path, const char *rootfs, const char *what, struct pil_err *err)
{
	_auto_fd int fd = open(tar_path, O_RDONLY | O_CLOEXEC);
	struct userns_stage stage = {0};
	struct proc_opts opts = {.stdin_fd = fd, .stdout_fd = -1, .stderr_fd = -1};
	const char *seen;
	pid_t pid;
	int status;

	if (fd < 0)
		return pil_err_set(err, errno, "open '%s'", tar_path);
	status = userns_mkdir(rootfs);
	if (status)
		return pil_err_set(err, -status, "make folder '%s'", rootfs);
	fprintf(stderr, "Unpacking %s ...\n", what);
	seen = userns_stage_add(&stage, rootfs);
	/* Device nodes cannot be made in a user namespace; machines get a /dev of their own. */
	pid = userns_spawn((char *[]){(char *)"tar", (char *)"--extract", (char *)"--zstd",
				      (char *)"--file", (char *)"-", (char *)"--numeric-owner",
				      (char *)"--preserve-permissions", (char *)"--exclude=./dev/*",
				      (char *)"--directory", (char *)seen, NULL},
			   &stage, &opts, err);
	if (pid < 0)
		return pid;
	status = wait_with_progress(pid, fd, what, UNPACK_TIMEOUT_MS);
	if (status) {
		pil_err_hint(err, "is there room? df -h %s", rootfs);
		return pil_err_say(err, EIO, "unpack %s: tar ended with status %d", what, status);
	}
	return 0;
}

int tree_install(const struct state_dirs *dirs, const struct recipe *recipe, const char *dir,
		 struct pil_err *err)
{
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_free char *part = str_printf("%s/rootfs.part", dir);
	_auto_free char *trees = str_printf("%s/trees", dirs->cache);
	_auto_free char *tar_path = NULL;
	char key[9];
	int ret = path_mkdirs(dir, 0755);

	recipe_key(recipe, key);
	tar_path = str_printf("%s/%s-%s.tar.zst", trees, recipe->name, key);
	if (!ret)
		ret = path_mkdirs(trees, 0755);
	if (ret)
		return pil_err_set(err, -ret, "make folder '%s'", dir);
	if (!path_exists(tar_path) && (ret = build_archive(dirs, recipe, tar_path, err)))
		return ret;
	ret = userns_remove_tree(part, err);
	if (!ret)
		ret = userns_remove_tree(rootfs, err);
	if (!ret)
		ret = unpack(tar_path, part, recipe->title, err);
	if (!ret && rename(part, rootfs))
		ret = pil_err_set(err, errno, "move '%s'", part);
	if (ret && userns_remove_tree(part, NULL))
		fprintf(stderr, "(%s is left behind; the next try removes it)\n", part);
	return ret;
}

int tree_remove(const char *dir, struct pil_err *err)
{
	static const char *const trees[] = {"rootfs", "rootfs.part"};
	int ret = 0;

	for (size_t i = 0; i < ARRAY_SIZE(trees) && !ret; i++) {
		_auto_free char *path = str_printf("%s/%s", dir, trees[i]);

		ret = userns_remove_tree(path, err);
	}
	if (!ret && (ret = path_remove_tree(dir)))
		return pil_err_set(err, -ret, "remove '%s'", dir);
	return ret;
}

int kit_ensure(const struct state_dirs *dirs, struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/kits/%s", dirs->data, recipe_runtime.name);
	_auto_free char *stamp = str_printf("%s/stamp", dir);
	_auto_free char *old = NULL;
	char key[9];
	int ret;

	recipe_key(&recipe_runtime, key);
	if (pil_read_file(stamp, 64, &old) > 0 && !strcmp(old, key))
		return 0;
	unlink(stamp);
	ret = tree_install(dirs, &recipe_runtime, dir, err);
	if (!ret && (ret = pil_write_file(stamp, 0600, key, strlen(key))))
		pil_err_set(err, -ret, "write '%s'", stamp);
	return ret ? ret : 1;
}
