/* SPDX-License-Identifier: Apache-2.0 */
#include "broker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "loop.h"
#include "path.h"
#include "proc.h"
#include "str.h"
#include "unixsock.h"
#include "token.h"

enum { ENSURE_MS = 10000, LOG_MAX_BYTES = 256 << 10 };

char *broker_socket_path(const struct state_dirs *dirs)
{
	return str_printf("%s/guest/broker.sock", dirs->runtime);
}

/* A connected stream with 10 s bounds on reading and writing, or -errno. */
static int connect_broker(const struct state_dirs *dirs)
{
	_auto_free char *path = broker_socket_path(dirs);
	const struct timeval bound = {.tv_sec = 10};
	int fd = unixsock_connect(path);

	if (fd < 0)
		return fd;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
	return fd;
}

/* What the broker said last, after @from in its log: the reason why it did not start. */
static int start_failed(const char *log_path, off_t from, int status, struct pil_err *err)
{
	_auto_free char *text = NULL;
	ssize_t len = pil_read_file(log_path, LOG_MAX_BYTES * 2, &text);
	char *save = NULL;

	pil_err_say(err, EIO, "start broker: it ended with status %d", status);
	pil_err_hint(err, "see %s", log_path);
	if (len < from)
		return -EIO;
	for (char *line = strtok_r(text + from, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		static const char said[] = "pillion-broker: err: ", hint[] = "hint: ";

		if (strncmp(line, said, sizeof(said) - 1))
			continue;
		line += sizeof(said) - 1;
		if (strncmp(line, hint, sizeof(hint) - 1))
			pil_err_say(err, EIO, "start broker: %s", line);
		else
			pil_err_hint(err, "%s", line + sizeof(hint) - 1);
	}
	return -EIO;
}

static int start_broker(const struct state_dirs *dirs, int64_t due_ms, struct pil_err *err)
{
	_auto_free char *program = state_find_program("broker", "pillion-broker", err);
	_auto_free char *log_path = str_printf("%s/broker.log", dirs->runtime);
	_auto_fd int log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	char *argv[] = {program, (char *)"--detach", NULL};
	struct proc_opts opts = {.stdin_fd = -1,
				 .stdout_fd = log_fd,
				 .stderr_fd = log_fd,
				 .new_session = true};
	struct stat st = {0};
	pid_t pid;
	int status;

	if (!program)
		return -ENOENT;
	if (log_fd < 0 || fstat(log_fd, &st))
		return pil_err_set(err, errno, "start broker: open '%s'", log_path);
	if (st.st_size > LOG_MAX_BYTES && ftruncate(log_fd, 0) == 0)
		st.st_size = 0;
	pid = proc_spawn(argv, &opts, err);
	if (pid < 0)
		return (int)pid;
	status = proc_wait(pid, loop_left_ms(due_ms)); /* it detaches once it serves */
	if (status == -ETIMEDOUT)
		proc_stop(pid, 0);
	return status ? start_failed(log_path, st.st_size, status, err) : 0;
}

/* A broker that has just been started by somebody else holds the lock before it listens, and one
 * that leaves stops listening before it lets the lock go: hence trying again for a while. */
int broker_ensure(const struct state_dirs *dirs, struct pil_err *err)
{
	int64_t due_ms = loop_now_ms() + ENSURE_MS;

	do {
		const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
		_auto_fd int fd = connect_broker(dirs);
		int ret;

		if (fd >= 0)
			return 0;
		if (fd == -ENAMETOOLONG || fd == -EACCES)
			return pil_err_set(err, -fd, "connect to the broker below '%s'",
					   dirs->runtime);
		ret = start_broker(dirs, due_ms, err);
		if (ret)
			return ret;
		pil_close_p(&fd);
		fd = connect_broker(dirs);
		if (fd >= 0)
			return 0;
		nanosleep(&pause, NULL);
	} while (loop_now_ms() < due_ms);
	pil_err_hint(err, "is the process in %s/broker.pid stopped?", dirs->runtime);
	return pil_err_say(err, ETIMEDOUT, "start broker: nobody answers at its socket");
}

int broker_token_create(const struct state_dirs *dirs, const char *name, char *hex,
			struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/machines/%s", dirs->runtime, name);
	_auto_free char *path = str_printf("%s/token", dir);
	uint8_t raw[WIRE_TOKEN_BYTES];
	char line[TOKEN_HEX + 2];
	int ret;

	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		return pil_err_set(err, errno, "make a token");
	token_to_hex(raw, hex);
	snprintf(line, sizeof(line), "%s\n", hex);
	ret = path_mkdirs(dir, 0700);
	if (!ret)
		ret = pil_write_file(path, 0600, line, strlen(line));
	return ret ? pil_err_set(err, -ret, "write token '%s'", path) : 0;
}

static int ask_devices(const struct state_dirs *dirs, const char *hex, struct wire_device *out,
		       int max, struct pil_err *err)
{
	_auto_fd int fd = connect_broker(dirs);
	struct wire_hello hello = {.magic = WIRE_MAGIC,
				   .version = WIRE_VERSION,
				   .want = WIRE_WANT_LIST,
				   .program = "pillion"};
	struct wire_hello_answer answer;
	int n = 0, ret;

	if (fd < 0)
		return pil_err_set(err, -fd, "connect to the broker");
	if (!token_from_hex(hex, hello.token))
		return pil_err_say(err, EINVAL, "malformed token");
	ret = pil_write_all(fd, &hello, sizeof(hello));
	if (!ret)
		ret = pil_read_all(fd, &answer, sizeof(answer));
	if (ret)
		return pil_err_set(err, -ret, "ask the broker for its devices");
	if (answer.magic != WIRE_MAGIC || answer.status >= WIRE_NUM_STATUSES ||
	    answer.status != WIRE_OK)
		return pil_err_say(err, EPROTO, "ask the broker for its devices: %s",
				   answer.status < WIRE_NUM_STATUSES
					   ? wire_status_str[answer.status]
					   : "bad answer");
	for (; n < max && (uint32_t)n < answer.n_devices; n++) {
		ret = pil_read_all(fd, &out[n], sizeof(out[n]));
		if (ret)
			return pil_err_set(err, -ret, "read the broker's list of devices");
		out[n].name[sizeof(out[n].name) - 1] = '\0';
		out[n].description[sizeof(out[n].description) - 1] = '\0';
	}
	return n;
}

int broker_devices(const struct state_dirs *dirs, struct wire_device *out, int max,
		   struct pil_err *err)
{
	_auto_free char *name = str_printf("query-%d", getpid());
	_auto_free char *dir = str_printf("%s/machines/%s", dirs->runtime, name);
	char hex[TOKEN_HEX + 1];
	int ret = broker_ensure(dirs, err);

	if (!ret)
		ret = broker_token_create(dirs, name, hex, err);
	if (!ret)
		ret = ask_devices(dirs, hex, out, max, err);
	if (path_remove_tree(dir))
		log_dbg("cannot remove '%s'", dir);
	return ret;
}
