/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds pillion's files for machines: in the build tree that this program is in, or installed.
 * Also makes a machine's resolv.conf: servers on the host's loopback cannot be reached from
 * inside. */
#include "machine/guest_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/own_addrs.h"
#include "base/path.h"
#include "base/str.h"

static char *find_guest_file(const char *in_build, const char *installed)
{
	_auto_free char *self = path_of_self();
	char *path = self ? str_printf("%s/../%s", self, in_build) : NULL;

	if (path && path_exists(path)) {
		char *real = realpath(path, NULL);

		free(path);
		return real;
	}
	free(path);
	path = str_printf("%s/%s", PILLION_GUESTDIR, installed);
	if (path_exists(path))
		return path;
	free(path);
	return NULL;
}

int guest_files_find(struct guest_files *files, struct pil_err *err)
{
	*files = (struct guest_files){
		.init = find_guest_file("guest/init/pillion-init", "bin/pillion-init"),
	};
	for (int i = 0; i < EXPOSED_NUM; i++) {
		_auto_free char *built =
			str_printf("guest/%s/%s", exposed[i].api, exposed[i].plugin);
		_auto_free char *installed = str_printf("lib/%s", exposed[i].plugin);

		files->plugins[i] = find_guest_file(built, installed);
	}
	if (files->init)
		return 0;
	guest_files_finish(files);
	return pil_err_say(err, ENOENT, "pillion-init is not in the build tree nor in %s",
			   PILLION_GUESTDIR);
}

void guest_files_finish(struct guest_files *files)
{
	free(files->init);
	for (int i = 0; i < EXPOSED_NUM; i++)
		free(files->plugins[i]);
	*files = (struct guest_files){0};
}

/* Can a machine not reach the server that @line of resolv.conf names? */
static bool out_of_reach(const struct own_addrs *own, const char *line)
{
	char address[64];

	return sscanf(line, "nameserver %63s", address) == 1 &&
	       (!strncmp(address, "127.", 4) || !strcmp(address, "::1") ||
		own_addrs_have(own, address));
}

char *guest_files_resolv_conf(const struct own_addrs *own, const char *forwarder, bool *forward)
{
	_auto_free char *text = NULL;
	char *out = str_printf("# Written by pillion at each start; [network] "
			       "generateResolvConf=false stops that.\n");
	char *save = NULL;
	bool any = false;

	if (pil_read_file("/etc/resolv.conf", 1 << 16, &text) < 0)
		text = strdup("");
	for (char *line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		bool server = !strncmp(line, "nameserver", 10);
		char *more;

		if (server && out_of_reach(own, line))
			continue;
		if (!server && strncmp(line, "search", 6) && strncmp(line, "options", 7))
			continue;
		any = any || server;
		more = str_printf("%s%s\n", out, line);
		free(out);
		out = more;
	}
	*forward = !any;
	if (!any) {
		char *more = str_printf("%snameserver %s\n", out, forwarder);

		free(out);
		out = more;
	}
	return out;
}
