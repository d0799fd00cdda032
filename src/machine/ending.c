/* SPDX-License-Identifier: Apache-2.0
 *
 * The file outlives the machine and is made anew by its next start.  It is written before the
 * machine's sockets close, so that who sees them close finds it there. */
#include "machine/ending.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/report.h"
#include "base/str.h"
#include "config/state.h"

static char *path_of(const struct state_dirs *dirs, const char *name)
{
	return str_printf("%s/machines/%s.end", dirs->runtime, name);
}

int ending_open(const struct state_dirs *dirs, const char *name, struct pil_err *err)
{
	_auto_free char *path = path_of(dirs, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	return fd < 0 ? pil_err_set(err, errno, "make '%s'", path) : fd;
}

void ending_explain(const struct state_dirs *dirs, const char *name, bool ran, struct pil_err *err)
{
	_auto_free char *path = path_of(dirs, name);
	_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);
	_auto_free char *ended = NULL;
	struct pil_err why = {0};
	char safe[sizeof(why.msg)];

	pil_err_hint(err, "see %s/machines/%s.log", dirs->runtime, name);
	if (!report_receive(fd, &why))
		return;
	str_escape(safe, sizeof(safe), why.msg);
	if (!ran)
		ended = str_printf("%s: ", err->msg);
	pil_err_say(err, err->code, "%s%s", ended ? ended : "", safe);
	if (why.hint[0])
		pil_err_hint(err, "%s", why.hint);
}
