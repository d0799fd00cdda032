/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: /sys is made of the parts that programs read: devices and what points to
 * them.  There are no control groups.  What is in these parts, and in /proc, and tells of the host
 * what a machine need not know is covered by pillion-init (src/guest/init/cover.c).
 *
 * /dev has the devices that every program may use.  /dev/fuse and /dev/net/tun serve file systems
 * and interfaces in namespaces of whoever opens them. */
#include "machine/kernel_files.h"

#include <stddef.h>
#include <sys/stat.h>

#include "agent/exposed.h"
#include "base/compiler.h"
#include "base/path.h"
#include "machine/room.h"

static const char *const parts_of_sys[] = {
	"/sys/block",   "/sys/bus",    "/sys/class",     "/sys/dev",
	"/sys/devices", "/sys/module", "/sys/kernel/mm", /* the size of huge pages */
};

static const char *const nodes[] = {
	"/dev/fuse", "/dev/full",   "/dev/net/tun", "/dev/null",
	"/dev/tty",  "/dev/random", "/dev/urandom", "/dev/zero",
};

static void add_dev(struct room *r)
{
	room_add(r, ROOM_TMPFS, NULL, "/dev", 0755);
	room_add(r, ROOM_DIR, NULL, "/dev/net", 0755);
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
		room_add(r, ROOM_NODE, nodes[i], nodes[i], S_IFREG);
	room_add(r, ROOM_DEVPTS, NULL, "/dev/pts", 0);
	room_add(r, ROOM_LINK, "pts/ptmx", "/dev/ptmx", 0);
	room_add(r, ROOM_LINK, "/proc/self/fd", "/dev/fd", 0);
	room_add(r, ROOM_LINK, "/proc/self/fd/0", "/dev/stdin", 0);
	room_add(r, ROOM_LINK, "/proc/self/fd/1", "/dev/stdout", 0);
	room_add(r, ROOM_LINK, "/proc/self/fd/2", "/dev/stderr", 0);
	room_add(r, ROOM_LINK, "/proc/kcore", "/dev/core", 0);
	room_add(r, ROOM_TMPFS, NULL, "/dev/shm", 01777);
	room_add(r, ROOM_DIR, NULL, "/dev/mqueue", 0755);
}

void kernel_files_add(struct room *r)
{
	add_dev(r);
	room_add(r, ROOM_PROC, NULL, "/proc", 0);
	room_add(r, ROOM_TMPFS, NULL, "/run", 0755);
	room_add(r, ROOM_DIR, NULL, EXPOSED_RUN, 0755);
	room_add(r, ROOM_DIR, NULL, EXPOSED_WHOLE, 0755);
	room_add(r, ROOM_TMPFS, NULL, "/sys", 0755);
	for (size_t i = 0; i < ARRAY_SIZE(parts_of_sys); i++)
		if (path_exists(parts_of_sys[i]))
			room_add(r, ROOM_SHOW, parts_of_sys[i], parts_of_sys[i], S_IFDIR);
	room_add(r, ROOM_DIR, NULL, "/sys/fs/cgroup", 0755);
	room_add(r, ROOM_SEAL, NULL, "/sys", 0);
	room_add(r, ROOM_TMPFS, NULL, "/tmp", 01777);
}
