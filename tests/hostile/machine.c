/* SPDX-License-Identifier: Apache-2.0
 *
 * machine.c -- cases of a microVM's root, who owns the kernel there, against the monitor:
 * registers, memory that is none, sockets of the host, disks.
 *
 * Most may end the machine they run in, and nothing else. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "hostile.h"

static void for_devices(void (*poke)(const char *folder))
{
	DIR *dir = opendir("/sys/bus/pci/devices");
	char path[300];
	const struct dirent *e;

	while (dir && (e = readdir(dir))) {
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", e->d_name);
		if (e->d_name[0] != '.')
			poke(path);
	}
	if (dir)
		closedir(dir);
}

static unsigned next_random(void)
{
	static uint64_t state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned)(state >> 16);
}

/* Every byte of configuration space, but for the class, with what is there and with anything. */
static void poke_config(const char *folder)
{
	char path[320];
	int fd;

	snprintf(path, sizeof(path), "%s/config", folder);
	fd = open(path, O_RDWR | O_CLOEXEC);
	for (int i = 0; fd >= 0 && i < 4096; i++) {
		unsigned value = next_random();
		int at = i < 1024 ? i / 4 : (int)(next_random() % 4096);

		if (pwrite(fd, &value, 1u << (value % 3), at) < 0)
			continue;
		if (pread(fd, &value, 4, at & ~3) < 0)
			continue;
	}
	if (fd >= 0)
		close(fd);
}

static int pci_config(const struct hostile_case *c)
{
	(void)c;
	for_devices(poke_config);
	return 0;
}

static void poke_bars(const char *folder)
{
	char path[320];

	for (int bar = 0; bar < 6; bar++) {
		struct stat st;
		int fd;
		volatile uint8_t *p;

		snprintf(path, sizeof(path), "%s/resource%d", folder, bar);
		fd = open(path, O_RDWR | O_SYNC | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st))
			continue;
		p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
		for (int i = 0; p != MAP_FAILED && i < 2000; i++) {
			unsigned at = next_random() % (unsigned)st.st_size & ~7u;

			switch (next_random() % 4) {
			case 0:
				p[at] = (uint8_t)next_random();
				break;
			case 1:
				*(volatile uint16_t *)(p + at) = (uint16_t)next_random();
				break;
			case 2:
				*(volatile uint32_t *)(p + at) = next_random();
				break;
			default:
				*(volatile uint64_t *)(p + at) = next_random();
			}
		}
	}
}

static int pci_bars(const struct hostile_case *c)
{
	(void)c;
	for_devices(poke_bars);
	return 0;
}

/* All ports but those that end the machine. */
static int ports(const struct hostile_case *c)
{
	(void)c;
	if (iopl(3))
		return -errno;
	for (unsigned port = 0; port < 0xfffd; port += 3) {
		if (port >= 0x600 && port < 0x610)
			continue;
		outl(next_random(), (unsigned short)port);
		inw((unsigned short)port);
	}
	return 0;
}

/* Addresses that are neither memory nor a device. */
static int nowhere(const struct hostile_case *c)
{
	static const uint64_t places[] = {0xd0000000,          0xfec00000,         0xfed00000,
					  0xfee00000,          0xffff0000,         1ull << 38,
					  (1ull << 40) - 4096, (1ull << 46) - 4096};
	int fd = open("/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC);
	int n = 0;

	(void)c;
	if (fd < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		volatile uint32_t *p =
			mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)places[i]);

		if (p == MAP_FAILED)
			continue;
		n++;
		for (int at = 0; at < 1024; at++) {
			p[at] = next_random();
			p[at] += p[at];
		}
	}
	hostile_note("%d places", n);
	return 0;
}

static int hypercall(const struct hostile_case *c)
{
	(void)c;
#ifdef __x86_64__
	for (long n = 0; n < 32; n++) {
		long ret = n;

		__asm__ volatile("vmmcall"
				 : "+a"(ret)
				 : "b"(0L), "c"(0L), "d"(0L), "S"(0L)
				 : "memory");
		if (ret >= 0 && ret != n)
			return 0;
	}
#endif
	return -EPERM;
}

/* The host's ports that are not for machines.  1024 to 1027 are pillion's. */
static int vsock_sweep(const struct hostile_case *c)
{
	struct tally t = {c, SKIPPED};
	char what[32];

	for (unsigned port = 1; port < 1200; port++) {
		struct sockaddr_vm to = {.svm_family = AF_VSOCK,
					 .svm_cid = VMADDR_CID_HOST,
					 .svm_port = port};
		struct timeval second = {1, 0};
		int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			return -errno;
		if (port >= 1024 && port < 1028) {
			close(fd);
			continue;
		}
		setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &second, sizeof(second));
		snprintf(what, sizeof(what), "port %u", port);
		tally_add(&t, hostile_errno(connect(fd, (struct sockaddr *)&to, sizeof(to))), what);
		close(fd);
	}
	return tally_result(&t, -ENODEV);
}

/* What only the monitor keeps from being written: whatever the kernel thinks of the disk's size. */
static int past_disk(const struct hostile_case *c)
{
	static char text[4096] __attribute__((aligned(4096)));
	uint64_t bytes = 0;
	int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
	int ret;

	(void)c;
	if (fd < 0)
		return -errno;
	if (ioctl(fd, BLKGETSIZE64, &bytes))
		return -errno;
	ret = hostile_errno(pwrite(fd, text, sizeof(text), (off_t)bytes));
	close(fd);
	return ret == 0 ? -ENOSPC : ret;
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		hostile_note("%s: %s", path, strerrorname_np(errno));
	if (fd >= 0)
		close(fd);
}

static int forge_console(const struct hostile_case *c)
{
	static const char text[] =
		"\n\033]0;owned\007\033[2Jpillion-machine: forged by the guest\r\n"
		"pillion-vmm: forged by the guest\n";

	(void)c;
	write_text("/dev/kmsg", text);
	write_text("/dev/console", text);
	write_text("/dev/hvc0", text);
	return 0;
}

static int flood_console(const struct hostile_case *c)
{
	static char text[65537];

	(void)c;
	memset(text, 'x', sizeof(text) - 1);
	for (int i = 0; i < 512; i++)
		write_text("/dev/hvc0", text);
	return 0;
}

/* The cards' drivers let go of them and take them again, in the middle of everything. */
static int rebind(const struct hostile_case *c)
{
	DIR *dir = opendir("/sys/bus/virtio/devices");
	char path[300];
	const struct dirent *e;

	(void)c;
	while (dir && (e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/bus/virtio/devices/%s/driver/unbind", e->d_name);
		/* of the disk the machine's root is, so that one goes last: with the machine */
		if (access("/sys/block/vda", F_OK) == 0 && strstr(c->arg, e->d_name))
			continue;
		write_text(path, e->d_name);
	}
	if (dir)
		closedir(dir);
	return 0;
}

static int crash(const struct hostile_case *c)
{
	write_text("/proc/sys/kernel/sysrq", "1");
	write_text("/proc/sysrq-trigger", c->arg);
	sleep(20);
	return 0;
}

static int kill_first(const struct hostile_case *c)
{
	(void)c;
	return hostile_errno(kill(-1, SIGKILL));
}

static const struct hostile_case cases[] = {
	{"vsock_sweep", ON_KVM, vsock_sweep, {ECONNRESET, ENODEV, EHOSTUNREACH, ETIMEDOUT}},
	{"past_disk", ON_KVM, past_disk, {ENOSPC, EIO, ENXIO}},
	{"hypercall", ON_KVM, hypercall, {EPERM, -SIGILL, -SIGSEGV}},
	{"nowhere", ON_KVM, nowhere, {0}},
	{"forge_console", ON_KVM, forge_console, {0}},
	{"flood_console", ON_KVM, flood_console, {0}},
	{"ports_poked", ON_KVM, ports, {0}},
	{"pci_config", ON_KVM, pci_config, {0}},
	{"pci_bars", ON_KVM, pci_bars, {0}},
	{"unbind_devices", ON_KVM, rebind, {0}, "virtio0"},
	{"kill_all", ON_BOTH, kill_first, {0}},
	{"crash", ON_KVM, crash, {0}, "c"},
};

const struct hostile_family hostile_machine = {cases, ARRAY_SIZE(cases)};
