/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the kernel starts us from an initramfs that holds this program, the kernel
 * modules of a machine's devices in the order they are loaded (/modules/00-failover.ko, ...) and
 * what programs in the machine get to see below /usr/lib/pillion.  The first thing said to the host
 * is "who am I?", on a connection that stays open for the machine's life: when it ends, so do we.
 *
 * The distro's disk is mounted beside the initramfs and then moved over it.  What stays reachable
 * of the initramfs is /usr/lib/pillion, bound into the distro read only; the rest is removed, as it
 * occupies memory. */
#include "guest/init/vm.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "agent/agent.h"
#include "agent/exposed.h"
#include "agent/init_options.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"

#define NEW_ROOT "/newroot"
#define SWAP_FLAG_DISCARD_PAGES                                                                    \
	0x40000 /* not all at once at the beginning, when there is nothing */
enum { DEVICE_WAIT_MS = 20000, MAX_OPTIONS_BYTES = 64 << 10, MAX_OPTIONS = 256 };

bool vm_booted(void)
{
	return getpid() == 1 && access("/proc/self", F_OK) != 0;
}

static int mount_at(const char *type, const char *path, unsigned long flags, const char *data)
{
	mkdir(path, 0755);
	if (mount(type, path, type, flags, data) == 0 || errno == EBUSY)
		return 0;
	log_warn("mount %s: %s", path, strerror(errno));
	return -errno;
}

/* ---- modules ---- */

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_module(const struct dirent *e)
{
	return strstr(e->d_name, ".ko") != NULL;
}

static void load_modules(void)
{
	struct dirent **names;
	int n = scandir("/modules", &names, is_module, by_name);

	for (int i = 0; i < n; i++) {
		_auto_free char *path = str_printf("/modules/%s", names[i]->d_name);
		_auto_fd int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			log_warn("load %s: %s", path, strerror(errno));
		unlink(path);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

/* The console may be one of the modules. */
static void open_console(void)
{
	int fd = open("/dev/hvc0", O_RDWR | O_NOCTTY);

	if (fd < 0)
		fd = open("/dev/null", O_RDWR | O_NOCTTY);
	for (int to = 0; fd >= 0 && to < 3; to++)
		dup2(fd, to);
	if (fd > 2)
		close(fd);
}

/* ---- the host ---- */

static int vsock_connect(unsigned port)
{
	struct sockaddr_vm host = {.svm_family = AF_VSOCK,
				   .svm_cid = VMADDR_CID_HOST,
				   .svm_port = port};
	int64_t due = clock_now_ms() + DEVICE_WAIT_MS;
	int err = ETIMEDOUT;

	do {
		_auto_fd int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd >= 0 && connect(fd, (struct sockaddr *)&host, sizeof(host)) == 0)
			return pil_take_fd(&fd);
		err = errno;
		poll(NULL, 0, 5);
	} while (clock_now_ms() < due);
	return -err;
}

/* Splits @text, @len bytes of NUL-terminated strings, into *@argv; the count, or -EPROTO. */
static int split_options(char *text, uint32_t len, char ***argv)
{
	_auto_free char **out = calloc(MAX_OPTIONS + 2, sizeof(*out));
	int n = 1;

	if (!out || len == 0 || text[len - 1] != '\0')
		return -EPROTO;
	out[0] = (char *)"pillion-init";
	for (char *at = text; at < text + len; at += strlen(at) + 1) {
		if (n > MAX_OPTIONS)
			return -EPROTO;
		out[n++] = at;
	}
	*argv = pil_take_ptr(&out);
	return n;
}

int vm_begin(char ***argv, int *life_fd)
{
	uint32_t len = 0;
	char *text;
	int fd, ret;

	mount_at("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
	mount_at("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_at("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	open_console();
	load_modules();
	open_console();
	fd = vsock_connect(LIFE_VSOCK_PORT);
	if (fd < 0)
		return fd;
	ret = pil_read_all(fd, &len, sizeof(len));
	if (ret)
		return ret;
	if (len > MAX_OPTIONS_BYTES)
		return -EPROTO;
	text = malloc(len + 1);
	if (!text)
		return -ENOMEM;
	ret = pil_read_all(fd, text, len);
	*life_fd = fd;
	return ret ? ret : split_options(text, len, argv);
}

/* ---- the root ---- */

static int mount_disk(void)
{
	int64_t due = clock_now_ms() + DEVICE_WAIT_MS;

	mkdir(NEW_ROOT, 0755);
	while (access("/dev/vda", F_OK) && clock_now_ms() < due)
		poll(NULL, 0, 5);
	if (mount("/dev/vda", NEW_ROOT, "ext4", MS_NOATIME, "discard"))
		return -errno;
	return 0;
}

/* The distro sees our files where it expects them, and cannot change them. */
static void bind_own_files(void)
{
	const char *path = NEW_ROOT EXPOSED_DIR, *wsl = NEW_ROOT EXPOSED_WSL;

	mkdir(path, 0755);
	mkdir(wsl, 0755);
	if (mount(EXPOSED_DIR, path, NULL, MS_BIND, NULL) ||
	    mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NODEV | MS_NOSUID, NULL))
		log_warn("show %s: %s", path, strerror(errno));
	if (mount("tmpfs", wsl, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0755") ||
	    symlink(EXPOSED_LIB, NEW_ROOT EXPOSED_WSL_LIB))
		log_warn("show %s: %s", wsl, strerror(errno));
}

static int switch_root(void)
{
	static const char *const moved[] = {"/dev", "/proc", "/sys"};

	for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
		_auto_free char *to = str_printf("%s%s", NEW_ROOT, moved[i]);

		mkdir(to, 0755);
		if (mount(moved[i], to, NULL, MS_MOVE, NULL))
			return -errno;
	}
	unlink("/init");
	if (chdir(NEW_ROOT) || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		return -errno;
	return 0;
}

static void mount_rest(void)
{
	mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
	mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_at("mqueue", "/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755");
	mount_at("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_at("cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	if (symlink("/proc/self/fd", "/dev/fd") || symlink("/proc/self/fd/0", "/dev/stdin") ||
	    symlink("/proc/self/fd/1", "/dev/stdout") || symlink("/proc/self/fd/2", "/dev/stderr"))
		log_dbg("links in /dev: %s", strerror(errno));
	mkdir(EXPOSED_RUN, 0755);
}

/* TAG:PATH[:ro] */
static void mount_share(const char *text)
{
	_auto_free char *copy = strdup(text);
	char *rest = copy, *tag = strsep(&rest, ":"), *path = strsep(&rest, ":");
	bool read_only = rest && !strcmp(rest, "ro");

	if (!path || path[0] != '/')
		return;
	if (path_mkdirs(path, 0755) ||
	    mount(tag, path, "virtiofs", MS_NOSUID | MS_NODEV | (read_only ? MS_RDONLY : 0), NULL))
		log_warn("mount the host's folder at %s: %s", path, strerror(errno));
}

/* What is beside the shares is nobody's, and is not written to by mistake. */
static void mount_shares(const char *const *mounts)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV;
	bool folders = false;

	for (const char *const *m = mounts; *m; m++) {
		if (!folders && strstr(*m, ":" EXPOSED_HOST_FOLDERS "/")) {
			folders = path_mkdirs(EXPOSED_HOST_FOLDERS, 0755) == 0 &&
				  mount_at("tmpfs", EXPOSED_HOST_FOLDERS, flags,
					   "size=64k,mode=0755") == 0;
		}
		mount_share(*m);
	}
	if (folders &&
	    mount(NULL, EXPOSED_HOST_FOLDERS, NULL, MS_REMOUNT | MS_RDONLY | flags, NULL))
		log_dbg("%s stays writable: %s", EXPOSED_HOST_FOLDERS, strerror(errno));
}

/* A new server knows nothing of what the kernel told the one before, and answers with errors.  The
 * kernel introduces itself once more when the last mount of the old one is gone. */
static void mend_mount(const char *text)
{
	_auto_free char *copy = strdup(text);
	char *rest = copy;
	const char *path = (strsep(&rest, ":"), strsep(&rest, ":"));
	struct stat st;

	if (!path || path[0] != '/' || stat(path, &st) == 0)
		return;
	if (errno != EIO && errno != ENOTCONN &&
	    errno != ECONNREFUSED) /* refused: mounted too early */
		return;
	if (umount2(path, MNT_DETACH) == 0)
		mount_share(text);
}

void vm_mend_mounts(const struct init_options *options)
{
	if (!options->mounts[0] || fork() != 0) /* reaped with the orphans */
		return;
	pil_close_from(3); /* a folder that does not answer holds nobody's stream */
	for (const char *const *m = options->mounts; *m; m++)
		mend_mount(*m);
	_exit(0);
}

/* ---- network ---- */

static int set_address(int fd, struct ifreq *r, unsigned long request, in_addr_t address)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = address};

	memcpy(&r->ifr_addr, &in, sizeof(in));
	return ioctl(fd, request, r) ? -errno : 0;
}

/* ADDRESS/PREFIX,GATEWAY,MTU for eth0. */
static int configure_network(const char *text)
{
	_auto_fd int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
	struct sockaddr_in any = {.sin_family = AF_INET}, gateway = any;
	struct ifreq r = {.ifr_name = "eth0"};
	char address[16], next[16];
	struct in_addr own;
	unsigned prefix, mtu;
	int ret;

	if (fd < 0 ||
	    sscanf(text, "%15[0-9.]/%u,%15[0-9.],%u", address, &prefix, next, &mtu) != 4 ||
	    prefix > 32 || !inet_aton(address, &own) || !inet_aton(next, &gateway.sin_addr))
		return -EINVAL;
	ret = set_address(fd, &r, SIOCSIFADDR, own.s_addr);
	if (!ret)
		ret = set_address(fd, &r, SIOCSIFNETMASK, htonl(prefix ? ~0u << (32 - prefix) : 0));
	r.ifr_mtu = (int)mtu;
	if (!ret && ioctl(fd, SIOCSIFMTU, &r))
		log_dbg("mtu %u: %s", mtu, strerror(errno));
	if (!ret && (ioctl(fd, SIOCGIFFLAGS, &r) || (r.ifr_flags |= IFF_UP, 0) ||
		     ioctl(fd, SIOCSIFFLAGS, &r)))
		ret = -errno;
	memcpy(&route.rt_dst, &any, sizeof(any));
	memcpy(&route.rt_genmask, &any, sizeof(any));
	memcpy(&route.rt_gateway, &gateway, sizeof(gateway));
	if (!ret && ioctl(fd, SIOCADDRT, &route))
		ret = -errno;
	return ret;
}

/* ---- all of it ---- */

int vm_listen(unsigned port)
{
	struct sockaddr_vm any = {.svm_family = AF_VSOCK,
				  .svm_cid = VMADDR_CID_ANY,
				  .svm_port = port};
	_auto_fd int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 128))
		return -errno;
	return pil_take_fd(&fd);
}

static void raise_limits(void)
{
	struct rlimit files = {1024, 1 << 20}, locked = {RLIM_INFINITY, RLIM_INFINITY};

	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_MEMLOCK, &locked); /* all memory is the machine's own */
}

/* What is swapped in again, and what its process leaves, goes back to the host.  Kernels do that
 * for disks that do not rotate, and take ours for one that does until told. */
static void start_swap(void)
{
	_auto_fd int fd = open("/sys/block/vdb/queue/rotational", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "0", 1) != 1)
		log_dbg("swap: what is not used stays occupied on the host");
	if (swapon("/dev/vdb", SWAP_FLAG_DISCARD | SWAP_FLAG_DISCARD_PAGES))
		log_warn("swap: %s", strerror(errno));
}

int vm_enter(const struct init_options *options)
{
	int ret = mount_disk();

	if (ret) {
		log_err("mount the distribution's disk: %s", strerror(-ret));
		return ret;
	}
	bind_own_files();
	ret = switch_root();
	if (ret) {
		log_err("move to the distribution's disk: %s", strerror(-ret));
		return ret;
	}
	mount_rest();
	raise_limits();
	if (options->token &&
	    pil_write_file(EXPOSED_TOKEN, 0444, options->token, strlen(options->token)))
		log_warn("write " EXPOSED_TOKEN ": no devices");
	if (pil_write_file(EXPOSED_MICROVM, 0444, "", 0)) /* for plugins */
		log_warn("write " EXPOSED_MICROVM ": no devices");
	if (options->net && (ret = configure_network(options->net)))
		log_warn("network: %s", strerror(-ret));
	mount_shares(options->mounts);
	if (options->swap)
		start_swap();
	return vm_listen(AGENT_VSOCK_PORT);
}

void vm_power_off(void)
{
	sync();
	swapoff("/dev/vdb");
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL))
		log_dbg("the root stays writable: %s", strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
}
