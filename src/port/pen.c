/* SPDX-License-Identifier: Apache-2.0
 *
 * Puts the arguments of bubblewrap together: the jail that all helpers share.  Callers add what
 * they bind. */
#include "port/pen.h"

#include <stddef.h>

#include "base/proc.h"

const char *const pen_file_caps[] = {"CAP_CHOWN",  "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH",
				     "CAP_FOWNER", "CAP_FSETID",       "CAP_SETFCAP",
				     NULL};
const char *const pen_copy_caps[] = {"CAP_CHOWN",           "CAP_DAC_OVERRIDE",
				     "CAP_DAC_READ_SEARCH", "CAP_FOWNER",
				     "CAP_FSETID",          "CAP_MKNOD",
				     "CAP_SETFCAP",         NULL};

void pen_begin(struct argv *a, const char *const *caps)
{
	argv_add_all(a, (const char *const[]){"bwrap",         "--unshare-ipc",
					      "--unshare-net", "--unshare-pid",
					      "--unshare-uts", "--unshare-cgroup-try",
					      "--ro-bind",     "/usr",
					      "/usr",          "--symlink",
					      "usr/lib",       "/lib",
					      "--symlink",     "usr/lib64",
					      "/lib64",        "--proc",
					      "/proc",         "--dev",
					      "/dev",          "--tmpfs",
					      "/run",          "--tmpfs",
					      "/var",          "--tmpfs",
					      "/tmp",          "--cap-drop",
					      "ALL",           NULL});
	for (; *caps; caps++)
		argv_add_all(a, (const char *const[]){"--cap-add", *caps, NULL});
}
