/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a machine without folders of the host has private memory, for which
 * pillion-vmm asks (madvise) and "enabled" decides.  The other's is a file on a mount of its own
 * (src/vmm/memory_file.c), which has them unless "shmem_enabled" denies them to all mounts. */
#include "machine/huge_pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"

#define SYS "/sys/kernel/mm/transparent_hugepage/"

/* The chosen word is the one in brackets. */
static bool is_not(const char *text, const char *word)
{
	return text && strchr(text, '[') && !strstr(text, word);
}

void huge_pages_judge(const char *enabled, const char *shmem_enabled, struct huge_pages *out)
{
	const char *own = "echo madvise | sudo tee " SYS "enabled";
	const char *shared = "echo never | sudo tee " SYS "shmem_enabled";
	const char *who;

	*out = (struct huge_pages){.own = is_not(enabled, "[never]"),
				   .shared = is_not(shmem_enabled, "[deny]")};
	if (out->own && out->shared) {
		snprintf(out->text, sizeof(out->text), "microVMs can have them");
		return;
	}
	if ((!out->own && !enabled) || (!out->shared && !shmem_enabled)) {
		snprintf(out->text, sizeof(out->text), "the host's kernel has none for %s",
			 out->own ? "microVMs with folders of the host" : "microVMs");
		return;
	}
	snprintf(out->command, sizeof(out->command), "%s%s%s", out->own ? "" : own,
		 out->own || out->shared ? "" : "; ", out->shared ? "" : shared);
	who = out->own      ? "microVMs with folders of the host (/mnt/models, share =) cannot"
	      : out->shared ? "microVMs without folders of the host cannot"
			    : "microVMs cannot";
	snprintf(out->text, sizeof(out->text), "%s have them, unless: %s", who, out->command);
}

void huge_pages_look(struct huge_pages *out)
{
	_auto_free char *enabled = NULL;
	_auto_free char *shmem_enabled = NULL;

	if (pil_read_file(SYS "enabled", 256, &enabled) < 0)
		enabled = NULL;
	if (pil_read_file(SYS "shmem_enabled", 256, &shmem_enabled) < 0)
		shmem_enabled = NULL;
	huge_pages_judge(enabled, shmem_enabled, out);
}
