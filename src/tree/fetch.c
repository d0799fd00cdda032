/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: curl writes to PATH.part and begins where that ends, so that what a broken
 * transfer left is of use, whoever was interrupted.  A whole file is compared with its SHA-256 and
 * renamed.  If it is another one, and began with what an earlier command had left, the file at the
 * other end may have changed meanwhile: then it is fetched once more from the start.
 *
 * Transfers that make progress are tried again, MAX_TRIES times.  One that stands still for
 * STALL_S seconds is broken off. */
#include "tree/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/proc_output.h"
#include "base/str.h"

enum {
	CONNECT_S = 30,
	STALL_S = 30,
	MAX_TRIES = 5,
	HASH_MS = 10 * 60 * 1000,
	FETCH_MS = 6 * 60 * 60 * 1000,
	LOOK_MS = 200,
};

static const struct {
	int status;
	bool again;
	const char *text;
} statuses[] = {
	{5, false, "the name of the proxy is not known"},
	{6, false, "the name of the server is not known"},
	{7, true, "the server cannot be reached"},
	{18, true, "the transfer broke off"},
	{23, false, "it cannot be written"},
	{28, true, "the server is silent"},
	{35, false, "no secure connection can be made"},
	{37, false, "the file cannot be read"},
	{47, false, "too many redirections"},
	{52, true, "the server sent nothing"},
	{55, true, "the transfer broke off"},
	{56, true, "the transfer broke off"},
	{60, false, "the server's certificate is not trusted"},
	{63, false, "the file is too large"},
	{92, true, "the transfer broke off"},
};

const char *fetch_explain(int status, int http_code, bool *again)
{
	*again = status == 22 && http_code >= 500;
	if (status == 22 && http_code == 404)
		return "the server has no such file (404)";
	if (status == 22 && http_code >= 500)
		return "the server has a fault";
	if (status == 22)
		return "the server refuses it";
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
		if (statuses[i].status == status) {
			*again = statuses[i].again;
			return statuses[i].text;
		}
	return "curl failed";
}

char *fetch_hash(const char *path, struct pil_err *err)
{
	char *argv[] = {(char *)"sha256sum", (char *)"--binary", (char *)"--", (char *)path, NULL};
	_auto_free char *text = NULL;
	int status = proc_output(argv, HASH_MS, &text, err);
	const char *hex = text && text[0] == '\\' ? text + 1 : text; /* an odd name */

	if (status < 0)
		return NULL;
	if (status || !hex || strspn(hex, "0123456789abcdef") != 64) {
		pil_err_say(err, EIO, "read '%s': sha256sum ended with status %d", path, status);
		return NULL;
	}
	return str_printf("%.64s", hex);
}

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : st.st_size;
}

static void add_options(struct argv *a, const struct fetch *f, const char *part)
{
	bool secure = !strncasecmp(f->url, "https:", 6);

	argv_add_all(a, (const char *const[]){"curl", "--disable", "--fail", "--location",
					      "--max-redirs", "10", "--continue-at", "-", NULL});
	argv_add_all(a, (const char *const[]){"--proto", "=http,https,file", "--proto-redir",
					      secure ? "=https" : "=http,https", NULL});
	argv_add(a, isatty(STDERR_FILENO) ? "--progress-bar" : "--silent");
	argv_add(a, "--connect-timeout");
	argv_addf(a, "%d", CONNECT_S);
	argv_add_all(a, (const char *const[]){"--speed-limit", "1", "--speed-time", NULL});
	argv_addf(a, "%d", STALL_S);
	argv_add(a, "--max-filesize");
	argv_addf(a, "%llu", (unsigned long long)f->max_bytes);
	argv_add_all(a, (const char *const[]){"--write-out", "%{http_code}", "--output", part, "--",
					      f->url, NULL});
}

/* Waits for curl, which must not write more than it may. */
static int wait_for_curl(pid_t pid, const struct fetch *f, const char *part)
{
	int64_t end_ms = clock_now_ms() + FETCH_MS;
	int status;

	while ((status = proc_wait(pid, LOOK_MS)) == -ETIMEDOUT) {
		if ((uint64_t)size_of(part) > f->max_bytes) {
			proc_stop(pid, 1000);
			return 63;
		}
		if (clock_now_ms() > end_ms) {
			proc_stop(pid, 1000);
			return 28;
		}
	}
	return (uint64_t)size_of(part) > f->max_bytes ? 63 : status;
}

/* One run of curl: its exit status or -errno. */
static int run_curl(const struct fetch *f, const char *part, int *http_code, struct pil_err *err)
{
	_auto_argv struct argv a = {0};
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	struct proc_opts opts = {.stdin_fd = -1, .stderr_fd = -1, .die_with_us = true};
	char code[16] = "";
	int fds[2], status;
	pid_t pid;

	add_options(&a, f, part);
	if (pipe2(fds, O_CLOEXEC))
		return pil_err_set(err, errno, "fetch '%s'", f->url);
	read_fd = fds[0];
	write_fd = opts.stdout_fd = fds[1];
	pid = proc_spawn(a.v, &opts, err);
	if (pid == -ENOENT)
		pil_err_hint(err, "sudo apt install curl");
	if (pid < 0)
		return pid;
	pil_close_p(&write_fd);
	status = wait_for_curl(pid, f, part);
	if (read(read_fd, code, sizeof(code) - 1) <= 0)
		code[0] = '\0';
	*http_code = atoi(code);
	return status;
}

/* Does the server not go on in the middle of a file, or is what is there longer than the file? */
static bool cannot_resume(int status, int http_code)
{
	return status == 33 || status == 36 || (status == 22 && http_code == 416);
}

static int transfer(const struct fetch *f, const char *part, struct pil_err *err)
{
	const char *why = "";
	int status = 0, http_code = 0;
	bool again = true;

	for (int try = 0; again && try < MAX_TRIES; try++) {
		off_t before = size_of(part);

		status = run_curl(f, part, &http_code, err);
		if (status <= 0)
			return status;
		if (before && cannot_resume(status, http_code)) {
			unlink(part);
			continue;
		}
		why = fetch_explain(status, http_code, &again);
		log_dbg("fetch: curl ended with status %d, %d: %s", status, http_code, why);
		if (again && size_of(part) == before)
			usleep(500 * 1000);
	}
	if (again)
		pil_err_hint(err, "check the network; the same command goes on with what is there");
	else if (status == 63)
		unlink(part);
	return pil_err_say(err, status == 63 ? EFBIG : ENETUNREACH, "fetch %s from '%.200s': %s",
			   f->title, f->url, why);
}

/* Compares @part with what was promised.  1: it is another file. */
static int compare(const struct fetch *f, const char *part, struct pil_err *err)
{
	_auto_free char *hex = f->sha256 ? fetch_hash(part, err) : NULL;

	if (!f->sha256)
		return 0;
	if (!hex)
		return -EIO;
	if (!strcmp(hex, f->sha256))
		return 0;
	unlink(part);
	pil_err_hint(err, "the file has changed since the list was made: pillion --update, or a "
			  "newer DistributionListUrl");
	pil_err_say(err, EBADMSG,
		    "The distribution hash doesn't match. Expected: %s, actual hash: %s", f->sha256,
		    hex);
	return 1;
}

static bool is_there(const struct fetch *f, const char *path)
{
	_auto_free char *hex = NULL;

	if (!f->sha256 || access(path, R_OK))
		return false;
	hex = fetch_hash(path, NULL);
	return hex && !strcmp(hex, f->sha256);
}

int fetch_file(const struct fetch *f, const char *path, struct pil_err *err)
{
	_auto_free char *part = str_printf("%s.part", path);
	int ret = 1;

	if (is_there(f, path))
		return 0;
	if (!f->sha256)
		unlink(part); /* of which file it is the beginning is not known */
	fprintf(stderr, "Downloading: %s\n", f->title);
	for (bool resumed = true; ret == 1 && resumed;) {
		resumed = size_of(part) > 0;
		ret = transfer(f, part, err);
		if (!ret)
			ret = compare(f, part, err);
	}
	if (ret == 1)
		return -EBADMSG;
	if (!ret && rename(part, path))
		ret = pil_err_set(err, errno, "store '%s'", path);
	return ret;
}
