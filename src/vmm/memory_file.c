/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: whether a file in memory has huge pages is a matter of its mount.  That of
 * memfd_create() is the kernel's own and does as /sys/kernel/mm/transparent_hugepage/shmem_enabled
 * says: never, by default.  So the file lies on a mount of ours, with pages as large as those of
 * private memory, which is attached nowhere and goes with the file.
 *
 * Only a memfd can be sealed.  A server that cuts this file short ends the machine it serves
 * (SIGBUS), and no other; it cannot make it take more than the mount holds. */
#include "vmm/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"

static int set_option(int fs, const char *key, const char *value)
{
	return (int)syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0);
}

/* A file without a name on a mount of its own, which holds @bytes in whole huge pages; -errno. */
static int open_huge(uint64_t bytes)
{
	const unsigned long long most = bytes + MEMORY_HUGE_BYTES;
	_auto_free char *size = str_printf("%llu", most);
	_auto_fd int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC), mount = -1;
	int fd;

	if (fs < 0 || set_option(fs, "huge", "always") || set_option(fs, "size", size) ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return -errno;
	mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOEXEC);
	if (mount < 0)
		return -errno;
	fd = openat(mount, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int memory_file_create(uint64_t bytes, struct pil_err *err)
{
	_auto_fd int fd = open_huge(bytes);
	bool huge = fd >= 0;

	if (!huge) {
		log_dbg("guest's memory: no mount of our own: %s", strerror(-fd));
		fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	}
	if (fd < 0 || ftruncate(fd, (off_t)bytes) ||
	    (!huge && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)))
		return pil_err_set(err, errno, "make the guest's memory");
	return pil_take_fd(&fd);
}
