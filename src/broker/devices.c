/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: asking means loading every back end once, in a jail, in a process that ends;
 * with a vendor's driver that can take a second, which the first program of a machine would wait
 * for.  So the answer is kept with a key of all that can change it: this version, the root and its
 * stamp, the folder of libraries, the executor's environment, the device nodes, and the boot.
 *
 * The free memory in the table is that of the probe; programs ask the executor for the live one. */
#include "broker/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/str.h"
#include "broker/cards.h"
#include "port/device_nodes.h"

enum { PROBE_MS = 30000, CACHE_MAX_BYTES = 64 << 10 };

/* ---- asking ---- */

/* Reads until the end of file or @max bytes, at most until @due_ms. */
static ssize_t read_until(int fd, void *buf, size_t max, int64_t due_ms)
{
	size_t len = 0;

	while (len < max) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int left = loop_left_ms(due_ms);
		ssize_t n;

		if (!left || poll(&p, 1, left) == 0)
			return -ETIMEDOUT;
		n = read(fd, (char *)buf + len, max - len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			break;
		len += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)len;
}

/* What came from the jail is checked: it is code of vendors. */
static int check(struct wire_device *devices, int n)
{
	for (int i = 0; i < n; i++) {
		devices[i].name[sizeof(devices[i].name) - 1] = '\0';
		devices[i].description[sizeof(devices[i].description) - 1] = '\0';
		str_blank_controls(devices[i].name); /* machines and people print them */
		str_blank_controls(devices[i].description);
		devices[i].api_name[sizeof(devices[i].api_name) - 1] = '\0';
		str_blank_controls(devices[i].api_name);
		cards_name(&devices[i]);
		devices[i].flags &= WIRE_DEVICE_ALL;
		if (devices[i].memory_free > devices[i].memory_total)
			devices[i].memory_free = devices[i].memory_total;
		if (!devices[i].name[0] || devices[i].api == WIRE_API_ANY)
			return -EPROTO;
	}
	return n;
}

static int probe(const struct jail *jail, struct wire_device *out, struct pil_err *err)
{
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	struct proc_opts opts = {.stdin_fd = -1,
				 .stderr_fd = -1,
				 .new_session = true,
				 .die_with_us = true};
	int pipe_fds[2], status;
	ssize_t n;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return pil_err_set(err, errno, "list devices");
	read_fd = pipe_fds[0];
	write_fd = opts.stdout_fd = pipe_fds[1];
	pid = jail_spawn(jail, (const char *const[]){"--probe", NULL}, &opts, err);
	if (pid < 0)
		return (int)pid;
	pil_close_p(&write_fd);
	n = read_until(read_fd, out, sizeof(*out) * WIRE_MAX_DEVICES, clock_now_ms() + PROBE_MS);
	status = n < 0 ? proc_stop(pid, 0) : proc_wait(pid, 5000);
	if (status == -ETIMEDOUT)
		status = proc_stop(pid, 0);
	if (n < 0)
		return pil_err_set(err, (int)-n, "list devices");
	if (status) {
		pil_err_say(err, EIO, "list devices: pillion-exec ended with status %d in its jail",
			    status);
		pil_err_hint(err, getuid() ? "does 'bwrap --unshare-user --ro-bind / / true' work "
					     "here? broker.log says what failed"
					   : "broker.log says what failed");
		return -EIO;
	}
	n = check(out, (int)((size_t)n / sizeof(*out)));
	return n < 0 ? pil_err_set(err, (int)-n, "list devices") : (int)n;
}

/* ---- the cache ---- */

static void key_add_file(char **key, const char *path)
{
	struct stat st = {0};
	char *longer;

	if (stat(path, &st))
		st.st_ino = 0;
	longer = str_printf("%s|%s %ju %jd.%09ld", *key, path, (uintmax_t)st.st_ino,
			    (intmax_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	free(*key);
	*key = longer;
}

static void key_add_text(char **key, const char *text)
{
	char *longer = str_printf("%s|%s", *key, text);

	free(*key);
	*key = longer;
}

static char *make_key(const struct jail *jail)
{
	_auto_free char *boot_id = NULL;
	_auto_free char *nvidia = NULL;
	char *key = str_printf("%s", PILLION_VERSION);
	glob_t found;

	if (pil_read_file("/proc/sys/kernel/random/boot_id", 64, &boot_id) > 0)
		key_add_text(&key, boot_id);
	key_add_file(&key, jail->program);
	key_add_file(&key, jail->root ? jail->root : jail->lib_dir);
	if (jail->root) {
		_auto_free char *stamp = str_printf("%s/../stamp", jail->root);

		key_add_file(&key, stamp);
	}
	for (int i = 0; i < jail->config->n_env; i++)
		key_add_text(&key, jail->config->env[i]);
	if (pil_read_file("/sys/module/nvidia/version", 64, &nvidia) > 0)
		key_add_text(&key, nvidia);
	device_nodes_all("", &found);
	for (size_t i = 0; i < found.gl_pathc; i++)
		key_add_text(&key, found.gl_pathv[i]);
	globfree(&found);
	return key;
}

static json_t *format_device(const struct wire_device *d)
{
	return json_pack("{s:i, s:i, s:i, s:i, s:s%, s:I, s:I, s:s%, s:s%, s:s}", "index",
			 (int)d->index, "flags", (int)d->flags, "api", d->api, "api_version",
			 d->api_version, "api_name", d->api_name,
			 strnlen(d->api_name, sizeof(d->api_name)), "memory_total",
			 (json_int_t)d->memory_total, "memory_free", (json_int_t)d->memory_free,
			 "name", d->name, strnlen(d->name, sizeof(d->name)), "description",
			 d->description, strnlen(d->description, sizeof(d->description)), "card",
			 d->card);
}

char *devices_format(const char *key, const struct wire_device *devices, int n)
{
	json_auto_t *list = json_array(), *root = NULL;

	for (int i = 0; i < n; i++)
		if (json_array_append_new(list, format_device(&devices[i])))
			return NULL; /* a name that is not UTF-8 */
	root = json_pack("{s:s, s:O}", "key", key, "devices", list);
	return root ? json_dumps(root, JSON_INDENT(1)) : NULL;
}

static bool parse_device(json_t *item, struct wire_device *d)
{
	const char *name, *description, *card, *api_name;
	json_int_t total, free_bytes;
	int index, flags, api, version;

	*d = (struct wire_device){0};
	if (json_unpack(item, "{s:i, s:i, s:i, s:i, s:s, s:I, s:I, s:s, s:s, s:s}", "index", &index,
			"flags", &flags, "api", &api, "api_version", &version, "api_name",
			&api_name, "memory_total", &total, "memory_free", &free_bytes, "name",
			&name, "description", &description, "card", &card) ||
	    index < 0 || flags < 0 || api <= 0 || api > UINT16_MAX || version < 0 ||
	    version > UINT16_MAX || total < 0 || free_bytes < 0)
		return false;
	d->index = (uint32_t)index;
	d->flags = (uint32_t)flags;
	d->api = (uint16_t)api;
	d->api_version = (uint16_t)version;
	d->memory_total = (uint64_t)total;
	d->memory_free = (uint64_t)free_bytes;
	snprintf(d->name, sizeof(d->name), "%s", name);
	snprintf(d->description, sizeof(d->description), "%s", description);
	snprintf(d->card, sizeof(d->card), "%s", card);
	snprintf(d->api_name, sizeof(d->api_name), "%s", api_name);
	return true;
}

int devices_parse(const char *text, const char *key, struct wire_device *out)
{
	json_auto_t *root = json_loads(text, 0, NULL);
	const char *its_key;
	json_t *list;
	int n = 0;

	if (!root || json_unpack(root, "{s:s, s:o}", "key", &its_key, "devices", &list) ||
	    strcmp(key, its_key) || !json_is_array(list) ||
	    json_array_size(list) > WIRE_MAX_DEVICES)
		return -EINVAL;
	for (; n < (int)json_array_size(list); n++)
		if (!parse_device(json_array_get(list, (size_t)n), &out[n]))
			return -EINVAL;
	return check(out, n) < 0 ? -EINVAL : n;
}

int devices_find(const struct state_dirs *dirs, const struct jail *jail, struct wire_device *out,
		 struct pil_err *err)
{
	_auto_free char *path = str_printf("%s/devices.json", dirs->cache);
	_auto_free char *key = make_key(jail);
	_auto_free char *text = NULL;
	int n, ret;

	if (pil_read_file(path, CACHE_MAX_BYTES, &text) > 0 &&
	    (n = devices_parse(text, key, out)) >= 0)
		return n;
	n = probe(jail, out, err);
	if (n < 0)
		return n;
	free(text);
	text = devices_format(key, out, n);
	ret = text ? pil_write_file(path, 0600, text, strlen(text)) : -EILSEQ;
	if (ret)
		log_warn("write '%s': %s", path, strerror(-ret));
	return n;
}

int devices_select(struct wire_device *devices, int n, bool reference)
{
	struct wire_device sorted[WIRE_MAX_DEVICES] = {0};
	int count = 0;

	for (int i = 0; i < n; i++)
		if (!(devices[i].flags & WIRE_DEVICE_REFERENCE))
			sorted[count++] = devices[i];
	if (count == 0)
		reference = true;
	for (int i = 0; i < n && reference; i++)
		if (devices[i].flags & WIRE_DEVICE_REFERENCE)
			sorted[count++] = devices[i];
	memcpy(devices, sorted, sizeof(sorted[0]) * (size_t)count);
	return count;
}
