/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: an archive is built beside its place in cache/trees and renamed; a tree is
 * unpacked beside its place and renamed.  Two locks keep callers apart: the caller of this module
 * holds that of the data folder (registry_lock), and building holds one in cache/trees, because
 * several data folders may share a cache.
 *
 * Being killed: tar dies with us; mmdebstrap is many processes, so it has a session of its own and
 * a guard, a process that ends that session when we are gone.  What it leaves then lies in a folder
 * of ours whose name tells which cache it belongs to; the next build removes it.  SIGINT, SIGTERM
 * and SIGHUP are caught while a child works: it is ended first, and the caller gets -EINTR and
 * cleans up.
 *
 * What a kit is made of is known from a dry run of mmdebstrap, which fetches the mirror's indexes
 * and names each package with its version.  That list lies beside the archive (written last) and in
 * each kit made of it: where the mirror's differs there is something newer. */
#include "tree/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "port/userns.h"
#include "tree/mirror.h"

enum { BUILD_TIMEOUT_MS = 30 * 60 * 1000, UNPACK_TIMEOUT_MS = 10 * 60 * 1000 };
enum { MAX_LIST_BYTES = 1 << 20 };
#define MIB             ((uint64_t)1 << 20)
#define FULL_DISK_BYTES (4 * MIB) /* less than this is left: that was the reason */

/* ---- being interrupted ---- */

static const int caught_signals[] = {SIGHUP, SIGINT, SIGTERM};
static volatile sig_atomic_t interrupted;

struct signals {
	struct sigaction old[ARRAY_SIZE(caught_signals)];
};

static void note_signal(int sig)
{
	interrupted = sig;
}

static void signals_catch(struct signals *s)
{
	struct sigaction action = {.sa_handler = note_signal};

	interrupted = 0;
	for (size_t i = 0; i < ARRAY_SIZE(caught_signals); i++)
		sigaction(caught_signals[i], &action, &s->old[i]);
}

static void signals_restore(const struct signals *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(caught_signals); i++)
		sigaction(caught_signals[i], &s->old[i], NULL);
}

static int say_interrupted(const char *what, struct pil_err *err)
{
	pil_err_say(err, EINTR, "install %s: interrupted", what);
	pil_err_hint(err, "run the same command again: it goes on with what was fetched");
	return -EINTR;
}

/* Ends the session of @pid: as a terminal would, then by force. */
static int stop_session(pid_t pid)
{
	int status;

	kill(-pid, SIGINT);
	status = proc_wait(pid, 10000);
	kill(-pid, SIGKILL);
	return status == -ETIMEDOUT ? proc_wait(pid, -1) : status;
}

/* Starts a process that ends session @session when we end without guard_dismiss().  Returns what
 * dismisses it, or -errno. */
static int guard_start(pid_t session, pid_t *guard)
{
	int fds[2];
	char c;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	*guard = fork();
	if (*guard == 0) {
		setsid();
		close(fds[1]);
		if (read(fds[0], &c, 1) != 1) {
			kill(-session, SIGINT);
			for (int i = 0; i < 50 && kill(-session, 0) == 0; i++)
				poll(NULL, 0, 100);
			kill(-session, SIGKILL);
		}
		_exit(0);
	}
	close(fds[0]);
	if (*guard < 0) {
		close(fds[1]);
		return -EAGAIN;
	}
	return fds[1];
}

static void guard_dismiss(int fd, pid_t guard)
{
	if (fd >= 0 && write(fd, "", 1) == 1)
		proc_wait(guard, 1000);
}

/* Waits for @pid, the leader of a session; ends that when we are told to end.  With @fd, shows
 * on a terminal how much of that file it has read. */
static int wait_for_child(pid_t pid, int fd, const char *what, int timeout_ms)
{
	int64_t start = clock_now_ms();
	bool show = fd >= 0 && isatty(STDERR_FILENO);
	struct stat st = {0};
	int status;

	if (fd < 0 || fstat(fd, &st) || st.st_size == 0)
		st.st_size = 1;
	while ((status = proc_wait(pid, 200)) == -ETIMEDOUT && !interrupted &&
	       clock_now_ms() - start < timeout_ms)
		if (show)
			fprintf(stderr, "\rUnpacking %s: %3d %%", what,
				(int)(100 * lseek(fd, 0, SEEK_CUR) / st.st_size));
	if (show)
		fprintf(stderr, "\r\033[K");
	return status == -ETIMEDOUT ? stop_session(pid) : status;
}

/* ---- room on disks ---- */

enum { PLACE_SCRATCH, PLACE_CACHE, NUM_PLACES };

/* A folder that a build fills, and by how much. */
struct place {
	const char *dir, *variable;        /* the variable names another place */
	uint64_t least_bytes, usual_bytes; /* no build does with less than the least */
};

static uint64_t free_bytes(const char *path)
{
	struct statvfs st;

	if (statvfs(path, &st))
		return UINT64_MAX;
	return st.f_files && !st.f_favail ? 0 : (uint64_t)st.f_bavail * st.f_frsize;
}

static const struct place *hopeless(const struct place *places)
{
	for (size_t i = 0; i < NUM_PLACES; i++)
		if (free_bytes(places[i].dir) < places[i].least_bytes)
			return &places[i];
	return NULL;
}

/* The one to blame when one of them was full: what filled it may be gone again. */
static const struct place *tightest(const struct place *places)
{
	const struct place *found = places;

	for (const struct place *p = places; p < places + NUM_PLACES; p++)
		if (free_bytes(p->dir) / (p->usual_bytes / MIB) <
		    free_bytes(found->dir) / (found->usual_bytes / MIB))
			found = p;
	return found;
}

static int say_full(const char *doing, const char *title, const char *dir, const char *variable,
		    struct pil_err *err)
{
	pil_err_hint(err, "is there room? df -h %.160s; %s=DIR names another place", dir, variable);
	return pil_err_say(err, ENOSPC, "%s %s: the disk is full: %s", doing, title, dir);
}

/* ---- what other programs need ---- */

static int check_programs(struct pil_err *err)
{
	static const char *const needed[] = {"mmdebstrap", "tar", "zstd"};
	struct proc_opts opts = {.stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
	pid_t pid;

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (proc_have(needed[i]))
			continue;
		pil_err_hint(err, "sudo apt install %s", needed[i]);
		return pil_err_say(err, ENOENT, "make a tree: the program '%s' is missing",
				   needed[i]);
	}
	/* Asked before minutes of work: may we have ids of our own? */
	pid = userns_spawn((char *[]){(char *)"true", NULL}, NULL, USERNS_HOST_PIDS, &opts, err);
	if (pid < 0)
		return pid;
	return proc_wait(pid, 10000) ? pil_err_say(err, EPERM, "run 'true' in a user namespace")
				     : 0;
}

/* Folders mmdebstrap works in; rootless, ids of /etc/subuid must be able to walk there, so they
 * are below TMPDIR and not in the cache, and contents belong to those ids. */
static const char *scratch_base(void)
{
	const char *base = getenv("TMPDIR");

	return base && base[0] == '/' ? base : "/tmp";
}

static char *scratch_pattern(const char *trees, const char *end)
{
	struct stat st = {0};

	if (stat(trees, &st))
		return NULL;
	return str_printf("%s/pillion-%u-%lx-%lx-%s", scratch_base(), getuid(),
			  (unsigned long)st.st_dev, (unsigned long)st.st_ino, end);
}

static void remove_scratch(const char *path)
{
	struct stat st;

	if (lstat(path, &st) || !S_ISDIR(st.st_mode) || st.st_uid != getuid())
		return;
	if (getuid() == 0 ? path_remove_tree(path) : userns_remove_tree(path, NULL))
		log_dbg("'%s' is left behind; the next build removes it", path);
}

static void remove_old_scratches(const char *trees)
{
	_auto_free char *pattern = scratch_pattern(trees, "??????");
	glob_t found;

	if (!pattern || glob(pattern, GLOB_NOSORT, NULL, &found))
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		remove_scratch(found.gl_pathv[i]);
	globfree(&found);
}

static char *make_scratch(const char *trees, struct pil_err *err)
{
	_auto_free char *path = scratch_pattern(trees, "XXXXXX");

	if (!path || !mkdtemp(path) || chmod(path, 0711)) {
		pil_err_set(err, errno, "make folder '%s'", path ? path : trees);
		return NULL;
	}
	return pil_take_ptr(&path);
}

/* ---- building the archive ---- */

static void add_build_options(struct argv *a, const struct recipe *recipe, bool dry,
			      bool expired_ok)
{
	argv_add_all(a, (const char *const[]){"mmdebstrap", "--format=tar", NULL});
	argv_add(a, recipe->extract || dry ? "--variant=extract" : "--variant=apt");
	if (dry)
		argv_add_all(a, (const char *const[]){"--simulate", "--verbose", NULL});
	if (recipe->extract)
		argv_addf(a, "--extract-hook=%s", recipe->extract);
	argv_add(a, getuid() == 0 ? "--mode=root" : "--mode=unshare");
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

struct build {
	const struct recipe *recipe;
	struct place places[NUM_PLACES];
	bool dry;   /* nothing is made: what it would be made of is in the log */
	char *part; /* unless dry */
	char *mirror, *log_path, *scratch;
};

static void build_finish(struct build *b)
{
	if (b->scratch)
		remove_scratch(b->scratch);
	if (b->part)
		unlink(b->part);
	free(b->mirror);
	free(b->part);
	free(b->log_path);
	free(b->scratch);
}

/* One run of mmdebstrap; what it says goes to the terminal and to the log. */
static int run_build(const struct build *b, bool expired_ok, struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	_auto_fd int tee_in = -1;
	_auto_fd int build_err = -1;
	_auto_fd int guard_fd = -1;
	struct proc_opts opts = {.stdin_fd = -1, .stdout_fd = STDERR_FILENO, .new_session = true};
	_auto_fd int null_fd = b->dry ? open("/dev/null", O_WRONLY | O_CLOEXEC) : -1;
	struct proc_opts tee_opts = {.stdout_fd = null_fd >= 0 ? null_fd : STDERR_FILENO,
				     .stderr_fd = -1,
				     .new_session = true};
	int fds[2], status;
	pid_t tee_pid, pid, guard = -1;

	argv_add(&a, "env");
	argv_addf(&a, "TMPDIR=%s", b->scratch);
	add_build_options(&a, b->recipe, b->dry, expired_ok);
	argv_add_all(&a,
		     (const char *const[]){b->recipe->suite, b->dry ? "/dev/null" : b->part, NULL});
	argv_addf(&a, "deb %s %s main", b->mirror, b->recipe->suite);
	if (b->recipe->more)
		argv_addf(&a, "deb %s %s main", b->mirror, b->recipe->more);
	if (pipe2(fds, O_CLOEXEC))
		return pil_err_set(err, errno, "run mmdebstrap");
	tee_opts.stdin_fd = tee_in = fds[0];
	opts.stderr_fd = build_err = fds[1];
	proc_leave_keyring(); /* scripts of packages run */
	tee_pid = proc_spawn((char *[]){(char *)"tee", (char *)"--output-error=warn", b->log_path,
					NULL},
			     &tee_opts, err);
	if (tee_pid < 0)
		return tee_pid;
	pid = proc_spawn(a.v, &opts, err);
	pil_close_p(&build_err);
	pil_close_p(&tee_in);
	if (pid < 0) {
		proc_stop(tee_pid, 100);
		return pid;
	}
	guard_fd = guard_start(pid, &guard);
	status = wait_for_child(pid, -1, b->recipe->title, BUILD_TIMEOUT_MS);
	guard_dismiss(guard_fd, guard);
	if (proc_wait(tee_pid, 2000) == -ETIMEDOUT) /* somebody still holds its pipe */
		proc_stop(tee_pid, 100);
	return status;
}

static bool log_says(const char *log_path, const char *const *what)
{
	_auto_free char *text = NULL;

	if (pil_read_file(log_path, 16 << 20, &text) <= 0)
		return false;
	for (; *what; what++)
		if (strstr(text, *what))
			return true;
	return false;
}

static int explain_build_failure(const struct build *b, int status, struct pil_err *err)
{
	static const char *const full[] = {"No space left", "enough free space", NULL};
	static const char *const away[] = {
		"Temporary failure resolving",    "Could not connect",      "Unable to connect",
		"Cannot initiate the connection", "Network is unreachable", "Connection refused",
		"Connection timed out",           "Could not resolve",      NULL};
	static const char *const no_suite[] = {"does not have a Release file", "404 ", NULL};
	const char *title = b->recipe->title;

	if (hopeless(b->places) || log_says(b->log_path, full)) {
		const struct place *place = tightest(b->places);

		return say_full("make", title, place->dir, place->variable, err);
	}
	if (log_says(b->log_path, away)) {
		pil_err_hint(err, "check the network, then run the same command again");
		return pil_err_say(err, ENETUNREACH, "make %s: the Debian mirror cannot be reached",
				   title);
	}
	pil_err_hint(err, "the whole report is in %.200s", b->log_path);
	if (log_says(b->log_path, no_suite))
		return pil_err_say(err, ENOENT,
				   "make %s: the mirror %s lacks Debian %s or a part of it", title,
				   b->mirror, b->recipe->suite);
	return pil_err_say(err, EIO, "make %s: mmdebstrap failed with status %d", title, status);
}

static int run_builds(const struct build *b, struct pil_err *err)
{
	static const char *const expired[] = {"is expired", "Valid-Until", NULL};
	static bool expired_ok; /* an index found expired is not asked for twice */
	int status;

	fprintf(stderr, b->dry ? "Asking the mirror for %s ...\n" : "Fetching %s ...\n",
		b->recipe->title);
	status = run_build(b, expired_ok, err);
	if (status > 0 && !expired_ok && !interrupted && log_says(b->log_path, expired)) {
		fputs("The mirror's index is past its date of validity: going on with its "
		      "signature "
		      "alone, which an old mirror has too.  Security fixes may be missing; check "
		      "the host's date, or use another mirror.\n",
		      stderr);
		expired_ok = true;
		status = run_build(b, true, err);
	}
	if (interrupted)
		return say_interrupted(b->recipe->title, err);
	return status > 0 ? explain_build_failure(b, status, err) : status;
}

/* Everything that works in scratch folders does so with this lock held. */
static int lock_trees(const char *trees, struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/lock", trees);

	return state_lock_patiently(path, "another pillion fetches a tree", BUILD_TIMEOUT_MS, err);
}

static int build(struct build *b, const struct state_dirs *dirs, const char *trees,
		 struct pil_err *err)
{
	const struct place *place;

	b->places[PLACE_SCRATCH] = (struct place){scratch_base(), "TMPDIR", 64 * MIB, 1536 * MIB};
	b->places[PLACE_CACHE] = (struct place){dirs->cache, "XDG_CACHE_HOME", 16 * MIB, 256 * MIB};
	remove_old_scratches(trees);
	place = hopeless(b->places);
	if (place)
		return say_full("make", b->recipe->title, place->dir, place->variable, err);
	b->mirror = mirror_find(err);
	if (!b->mirror)
		return -ENOENT;
	b->log_path = str_printf("%s/mmdebstrap.log", dirs->cache);
	b->scratch = make_scratch(trees, err);
	return b->scratch ? run_builds(b, err) : -EIO;
}

static char *archive_path(const struct state_dirs *dirs, const struct recipe *recipe)
{
	char key[9];

	recipe_key(recipe, key);
	return str_printf("%s/trees/%s-%s.tar.zst", dirs->cache, recipe->name, key);
}

static bool file_says(const char *path, const char *text)
{
	_auto_free char *there = NULL;

	return pil_read_file(path, MAX_LIST_BYTES, &there) >= 0 && !strcmp(there, text);
}

/* Makes the archive if it is not there, or is of other packages than @packages (NULL: any will
 * do). */
static int build_archive(const struct state_dirs *dirs, const struct recipe *recipe,
			 const char *trees, const char *tar_path, const char *packages,
			 struct pil_err *err)
{
	_auto_free char *list = str_printf("%s.packages", tar_path);
	_auto_fd int lock_fd = lock_trees(trees, err);
	struct build b = {.recipe = recipe, .part = str_printf("%s.part.tar.zst", tar_path)};
	int ret = lock_fd < 0 ? lock_fd : 0;

	/* perhaps it is the other one's, who had the lock */
	if (!ret && !(path_exists(tar_path) && (!packages || file_says(list, packages)))) {
		ret = build(&b, dirs, trees, err);
		if (!ret)
			unlink(list);
		if (!ret && rename(b.part, tar_path))
			ret = pil_err_set(err, errno, "store '%s'", tar_path);
		if (!ret && packages && pil_write_file(list, 0644, packages, strlen(packages)))
			log_dbg("'%s' is not written: the next update fetches anew", list);
	}
	build_finish(&b);
	return ret;
}

/* ---- what it is made of ---- */

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char *tree_list_packages(char *log)
{
	_auto_free char **lines = NULL;
	size_t n = 0, bytes = 0;
	char *text = NULL, *rest;
	FILE *out;

	for (char *line = strtok_r(log, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *version = strncmp(line, "Inst ", 5) ? NULL : strchr(line, '(');

		if (!version)
			continue;
		lines = reallocarray(lines, n + 1, sizeof(*lines));
		if (!lines)
			abort();
		line += 5;
		lines[n++] = line;
		line[strcspn(line, " ")] = '\0';
		version++; /* moved to behind the name, whatever was between */
		version[strcspn(version, " )")] = '\0';
		bytes = strlen(line);
		line[bytes] = ' ';
		memmove(line + bytes + 1, version, strlen(version) + 1);
	}
	if (n)
		qsort(lines, n, sizeof(*lines), by_text);
	out = open_memstream(&text, &bytes);
	for (size_t i = 0; out && i < n; i++)
		fprintf(out, "%s\n", lines[i]);
	if (out)
		fclose(out);
	return text;
}

static char *ask_mirror(const struct state_dirs *dirs, const struct recipe *recipe,
			struct pil_err *err)
{
	_auto_free char *trees = str_printf("%s/trees", dirs->cache);
	_auto_fd int lock_fd = -1;
	_auto_free char *log = NULL;
	struct build b = {.recipe = recipe, .dry = true};
	char *list = NULL;
	int ret = path_mkdirs(trees, 0755);

	if (ret) {
		pil_err_set(err, -ret, "make folder '%s'", trees);
		return NULL;
	}
	lock_fd = lock_trees(trees, err);
	if (lock_fd >= 0 && build(&b, dirs, trees, err) == 0) {
		if (pil_read_file(b.log_path, 16 << 20, &log) > 0)
			list = tree_list_packages(log);
		if (!list || !list[0])
			pil_err_say(err, EIO, "make %s: mmdebstrap names no packages",
				    recipe->title);
	}
	build_finish(&b);
	if (list && !list[0])
		pil_free_p(&list);
	return list;
}

char *tree_packages(const struct state_dirs *dirs, const struct recipe *recipe, struct pil_err *err)
{
	struct signals signals;
	char *list;

	if (check_programs(err))
		return NULL;
	signals_catch(&signals);
	list = ask_mirror(dirs, recipe, err);
	signals_restore(&signals);
	return list;
}

bool tree_has_archive(const struct state_dirs *dirs, const struct recipe *recipe)
{
	_auto_free char *path = archive_path(dirs, recipe);

	return path_exists(path);
}

/* ---- unpacking ---- */

static int explain_unpack_failure(const struct state_dirs *dirs, const char *what,
				  const char *log_path, int status, struct pil_err *err)
{
	static const char *const full[] = {"No space left", "Disk quota", NULL};

	if (interrupted)
		return say_interrupted(what, err);
	if (free_bytes(dirs->data) < FULL_DISK_BYTES || log_says(log_path, full))
		return say_full("unpack", what, dirs->data, "XDG_DATA_HOME", err);
	pil_err_hint(err, "the whole report is in %.200s", log_path);
	return pil_err_say(err, EIO, "unpack %s: tar ended with status %d", what, status);
}

static int unpack(const struct state_dirs *dirs, const char *tar_path, const char *rootfs,
		  const char *what, struct pil_err *err)
{
	_auto_free char *log_path = str_printf("%s/unpack.log", dirs->cache);
	_auto_fd int fd = open(tar_path, O_RDONLY | O_CLOEXEC);
	_auto_fd int log_fd = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct userns_stage stage = {0};
	struct proc_opts opts = {.stdin_fd = fd,
				 .stdout_fd = -1,
				 .stderr_fd = log_fd,
				 .new_session = true,
				 .die_with_us = true};
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
			   &stage, USERNS_HOST_PIDS, &opts, err);
	if (pid < 0)
		return pid;
	status = wait_for_child(pid, fd, what, UNPACK_TIMEOUT_MS);
	return status || interrupted ? explain_unpack_failure(dirs, what, log_path, status, err)
				     : 0;
}

/* Puts the finished tree @part in the place of @rootfs. */
static int replace_tree(const char *part, const char *rootfs, struct pil_err *err)
{
	_auto_free char *old = str_printf("%s.old", rootfs);

	if (rename(rootfs, old) && errno != ENOENT)
		return pil_err_set(err, errno, "move '%s'", rootfs);
	if (rename(part, rootfs))
		return pil_err_set(err, errno, "move '%s'", part);
	return userns_remove_tree(old, err);
}

/* Notes in @dir what its tree is made of, as far as that is known. */
static void note_packages(const char *tar_path, const char *dir)
{
	_auto_free char *from = str_printf("%s.packages", tar_path);
	_auto_free char *to = str_printf("%s/packages", dir);
	_auto_free char *list = NULL;

	if (pil_read_file(from, MAX_LIST_BYTES, &list) < 0)
		unlink(to);
	else if (pil_write_file(to, 0644, list, strlen(list)))
		log_dbg("'%s' is not written: the next update makes the tree anew", to);
}

static int install(const struct state_dirs *dirs, const struct recipe *recipe, const char *dir,
		   const char *packages, struct pil_err *err)
{
	_auto_free char *rootfs = str_printf("%s/rootfs", dir);
	_auto_free char *part = str_printf("%s/rootfs.part", dir);
	_auto_free char *old = str_printf("%s/rootfs.old", dir);
	_auto_free char *trees = str_printf("%s/trees", dirs->cache);
	_auto_free char *tar_path = archive_path(dirs, recipe);
	int ret = path_mkdirs(trees, 0755);

	if (ret)
		return pil_err_set(err, -ret, "make folder '%s'", trees);
	if (packages || !path_exists(tar_path))
		ret = build_archive(dirs, recipe, trees, tar_path, packages, err);
	if (ret)
		return ret;
	if ((ret = path_mkdirs(dir, 0755)))
		return pil_err_set(err, -ret, "make folder '%s'", dir);
	ret = userns_remove_tree(old, err);
	if (!ret)
		ret = userns_remove_tree(part, err);
	if (!ret)
		ret = unpack(dirs, tar_path, part, recipe->title, err);
	if (!ret)
		note_packages(tar_path, dir);
	return ret ? ret : replace_tree(part, rootfs, err);
}

int tree_install_of(const struct state_dirs *dirs, const struct recipe *recipe, const char *dir,
		    const char *packages, struct pil_err *err)
{
	struct signals signals;
	int ret = check_programs(err);

	if (ret)
		return ret;
	signals_catch(&signals);
	ret = install(dirs, recipe, dir, packages, err);
	if (ret) {
		_auto_free char *part = str_printf("%s/rootfs.part", dir);

		if (userns_remove_tree(part, NULL))
			log_dbg("'%s' is left behind; the next try removes it", part);
	}
	signals_restore(&signals);
	return ret;
}

int tree_install(const struct state_dirs *dirs, const struct recipe *recipe, const char *dir,
		 struct pil_err *err)
{
	return tree_install_of(dirs, recipe, dir, NULL, err);
}

/* The trees right in @dir. */
static int remove_trees(const char *dir, struct pil_err *err)
{
	static const char *const trees[] = {"rootfs", "rootfs.part", "rootfs.old", "image.part"};
	int ret = 0;

	for (size_t i = 0; i < ARRAY_SIZE(trees) && !ret; i++) {
		_auto_free char *path = str_printf("%s/%s", dir, trees[i]);

		ret = userns_remove_tree(path, err);
	}
	return ret;
}

/* Those of the snapshots, each in a folder of its own. */
static int remove_snapshots(const char *dir, struct pil_err *err)
{
	_auto_free char *pattern = str_printf("%s/snapshots/*", dir);
	glob_t found;
	int ret = 0;

	if (glob(pattern, GLOB_NOSORT | GLOB_PERIOD, NULL, &found))
		return 0;
	for (size_t i = 0; i < found.gl_pathc && !ret; i++) {
		const char *name = strrchr(found.gl_pathv[i], '/') + 1;

		if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
			ret = remove_trees(found.gl_pathv[i], err);
	}
	globfree(&found);
	return ret;
}

int tree_remove(const char *dir, struct pil_err *err)
{
	_auto_free char *real = realpath(dir, NULL); /* it may be a link to where the user put it */
	int ret;

	if (real) {
		ret = remove_trees(real, err);
		if (!ret)
			ret = remove_snapshots(real, err);
		if (!ret && (ret = path_remove_tree(real)))
			pil_err_set(err, -ret, "remove '%s'", real);
		if (ret)
			return ret;
	}
	ret = path_remove_tree(dir);
	return ret ? pil_err_set(err, -ret, "remove '%s'", dir) : 0;
}

int tree_swap(const char *part, const char *place, struct pil_err *err)
{
	_auto_free char *old = str_printf("%s.old", place);
	int ret = renameat2(AT_FDCWD, part, AT_FDCWD, place, RENAME_EXCHANGE) ? -errno : 0;

	if (ret == -ENOENT)
		ret = rename(part, place) ? -errno : 0;
	if (ret == -EINVAL) { /* a file system that cannot: there is none for a moment */
		ret = rename(place, old) || rename(part, place) ? -errno : 0;
		if (!ret && rename(old, part))
			ret = -errno;
	}
	return ret ? pil_err_set(err, -ret, "move '%s'", part) : 0;
}

void tree_sweep(const struct state_dirs *dirs)
{
	_auto_free char *path = str_printf("%s/distros", dirs->data);
	DIR *dir = opendir(path);
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		_auto_free char *tree = str_printf("%s/%s", path, e->d_name);
		_auto_free char *json = str_printf("%s/distro.json", tree);
		struct pil_err err = {0};

		if (strncmp(e->d_name, TREE_MOVING, strlen(TREE_MOVING)) != 0 &&
		    (!str_is_name(e->d_name) || path_exists(json)))
			continue;
		fprintf(stderr, "Removing what an unfinished command left of '%s' ...\n",
			e->d_name);
		if (tree_remove(tree, &err))
			log_warn("%s", err.msg);
	}
	if (dir)
		closedir(dir);
}
