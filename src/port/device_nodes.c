/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of device nodes that computing needs.  A pattern names a node or a folder; folders are
 * looked into, one level deep.  A new kind of device is one line here. */
#include "port/device_nodes.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/compiler.h"

static const char *const patterns[] = {
	"accel",     /* NPUs of Linux's own kind */
	"davinci*",  /* Huawei */
	"dma_heap",  /* memory that NPUs share */
	"dri",       /* GPUs */
	"dxg",       /* the GPU of Windows, in a WSL 2 */
	"fastrpc-*", /* Qualcomm */
	"kfd",       /* AMD, to compute */
	"nvidia*",
};

void device_nodes_top(const char *root, glob_t *out)
{
	char pattern[PATH_MAX];

	*out = (glob_t){0};
	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
		snprintf(pattern, sizeof(pattern), "%s/dev/%s", root, patterns[i]);
		glob(pattern, i ? GLOB_APPEND : 0, NULL, out);
	}
}

void device_nodes_all(const char *root, glob_t *out)
{
	char pattern[PATH_MAX];
	size_t n_top;

	device_nodes_top(root, out);
	n_top = out->gl_pathc;
	for (size_t i = 0; i < n_top; i++) {
		snprintf(pattern, sizeof(pattern), "%s/*", out->gl_pathv[i]);
		glob(pattern, GLOB_APPEND, NULL, out);
	}
}

static bool is_among(gid_t gid, const gid_t *groups, int n)
{
	for (int i = 0; i < n; i++)
		if (groups[i] == gid)
			return true;
	return false;
}

int device_nodes_groups(const char *root, gid_t *groups, int max)
{
	glob_t found;
	struct stat st;
	int n = 0;

	device_nodes_all(root, &found);
	for (size_t i = 0; i < found.gl_pathc && n < max; i++)
		if (stat(found.gl_pathv[i], &st) == 0 && S_ISCHR(st.st_mode) && st.st_gid &&
		    !is_among(st.st_gid, groups, n))
			groups[n++] = st.st_gid;
	globfree(&found);
	return n;
}
