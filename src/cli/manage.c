/* SPDX-License-Identifier: Apache-2.0
 *
 * Each holds the registry's lock while it works, and needs a distribution that does not run, but
 * for the default user: the machine is asked for that. */
#include "cli/manage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "cli/cli.h"
#include "config/registry.h"
#include "disk/copies.h"
#include "disk/image.h"
#include "machine/attach.h"
#include "machine/attach.h"
#include "machine/machine.h"

static int needs_disk(const struct distro *distro, const char *what, struct pil_err *err)
{
	if (distro->version == 2)
		return 0;
	pil_err_hint(err, "a sandbox has no disk of its own: pillion --set-version %s 2",
		     distro->name);
	return pil_err_say(err, ENOTSUP, "--%s is for microVMs (version 2)", what);
}

/* Changes the disk while nobody else can use it. */
static int on_disk(struct cli *cli, const struct distro *distro, uint64_t bytes,
		   struct pil_err *err)
{
	_auto_free char *dir = str_printf("%s/distros/%s", cli->dirs.data, distro->name);
	_auto_free char *image = str_printf("%s/" IMAGE_NAME, dir);
	_auto_fd int disk_fd = image_open(image, err);

	if (disk_fd < 0)
		return disk_fd;
	return bytes ? image_resize(dir, bytes, err) : image_compact(dir, err);
}

static int resize(struct cli *cli, const struct distro *distro, const char *size,
		  struct pil_err *err)
{
	uint64_t bytes;

	if (!str_to_bytes(size, &bytes) || !bytes)
		return pil_err_say(err, EINVAL, "Invalid size: %.64s", size);
	return on_disk(cli, distro, bytes, err);
}

/* Disks are sparse here whatever is asked for. */
static int set_sparse(struct cli *cli, const struct distro *distro, const char *value,
		      struct pil_err *err)
{
	if (!strcmp(value, "true"))
		return on_disk(cli, distro, 0, err);
	if (strcmp(value, "false") != 0)
		return pil_err_say(err, EINVAL, "%.64s is not a valid boolean, <true|false>",
				   value);
	cli_ignored("set-sparse false");
	return 0;
}

/* ---- the default user ---- */

/* What `id -u USER` says in the machine: its status. */
static int ask_for_id(struct cli *cli, const char *name, const char *user, char *answer,
		      size_t size, struct pil_err *err)
{
	const char *const args[] = {"id", "-u", "--", user, NULL};
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	_auto_fd int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct attach_opts attach = {.user = "root", .cwd = "/", .args = args, .stdin_fd = -1};
	int fds[2], fd, ret = -EAGAIN;
	ssize_t n;

	if (null_fd < 0 || pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return pil_err_set(err, errno, "ask the machine");
	read_fd = fds[0];
	write_fd = fds[1];
	attach.stdout_fd = write_fd;
	attach.stderr_fd = null_fd;
	for (int try = 0; ret == -EAGAIN && try < 3; try++) {
		fd = machine_connect(&cli->dirs, name, err);
		ret = fd < 0 ? fd : attach_run(fd, &attach, err);
	}
	n = read(read_fd, answer, size - 1);
	answer[n > 0 ? n : 0] = '\0';
	answer[strcspn(answer, "\n")] = '\0';
	return ret;
}

static int set_default_user(struct cli *cli, const char *name, const char *user,
			    struct pil_err *err)
{
	_auto_fd int lock_fd = -1;
	struct distro distro;
	char answer[32], safe[128];
	uint64_t uid;
	int ret = ask_for_id(cli, name, user, answer, sizeof(answer), err);

	if (ret < 0)
		return ret;
	if (ret || !str_to_u64(answer, 65533, &uid)) {
		pil_err_hint(err, "make it: pillion -d %s -u root -e useradd -m NAME", name);
		return pil_err_say(err, ENOENT, "there is no user '%s' in it",
				   str_escape(safe, sizeof(safe), user));
	}
	lock_fd = registry_lock(&cli->dirs, err);
	ret = lock_fd < 0 ? lock_fd : registry_find(&cli->dirs, name, &distro, err);
	if (ret)
		return ret;
	distro.default_uid = (unsigned)uid;
	ret = registry_add(&cli->dirs, &distro, err);
	if (!ret && machine_running(&cli->dirs, name))
		fprintf(stderr,
			"pillion: it holds from the next start of '%s'\nhint: pillion "
			"--terminate %s\n",
			name, name);
	return ret;
}

int manage_change(struct cli *cli, const char *name, enum option_id id, const char *argument,
		  struct pil_err *err)
{
	_auto_fd int lock_fd = -1;
	struct distro distro;
	int ret;

	if (id == OPT_MANAGE_SET_DEFAULT_USER)
		return set_default_user(cli, name, argument, err);
	lock_fd = registry_lock(&cli->dirs, err);
	ret = lock_fd < 0 ? lock_fd : registry_find(&cli->dirs, name, &distro, err);
	if (!ret)
		ret = cli_claim_stopped(cli, lock_fd, "Converting", &distro, err);
	if (!ret && id != OPT_MANAGE_MOVE)
		ret = needs_disk(&distro, options_all[id].name, err);
	if (ret)
		return ret;
	if (id == OPT_MANAGE_MOVE)
		return copies_move(&cli->dirs, &distro, argument, err);
	if (id == OPT_MANAGE_RESIZE)
		return resize(cli, &distro, argument, err);
	return id == OPT_MANAGE_COMPACT ? on_disk(cli, &distro, 0, err)
					: set_sparse(cli, &distro, argument, err);
}
