/* SPDX-License-Identifier: Apache-2.0
 *
 * sockets.c -- cases against sockets: the host's, other machines', the broker's, the kernel's. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/if_ether.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "hostile.h"
#include "lingering.h"

enum { CONNECT_MS = 700 };

static int connect_to(int family, const void *address, socklen_t size)
{
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int error = 0;
	socklen_t four = sizeof(error);

	if (fd < 0)
		return -errno;
	if (connect(fd, address, size)) {
		error = errno;
		if (error == EINPROGRESS) {
			error = poll(&p, 1, CONNECT_MS) > 0 ? 0 : ETIMEDOUT;
			if (!error)
				getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &four);
		}
	}
	if (error) {
		close(fd);
		return -error;
	}
	return fd;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};

	memcpy(to.sun_path, path, strnlen(path, sizeof(to.sun_path) - 1));
	return connect_to(AF_UNIX, &to, sizeof(to));
}

/* ---- by name ---- */

static int abstract(const struct hostile_case *c)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	const char *name = hostile_told("abstract");

	(void)c;
	if (!name)
		return hostile_skip("the host listens on none");
	snprintf(to.sun_path + 1, sizeof(to.sun_path) - 1, "%s", name);
	return connect_to(AF_UNIX, &to,
			  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)));
}

static int by_path(const struct hostile_case *c)
{
	hostile_make_writable(c->arg);
	return connect_unix(c->arg);
}

static int fifo(const struct hostile_case *c)
{
	int fd = open(c->arg, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	int ret = hostile_errno(fd);

	if (fd < 0)
		return ret;
	ret = hostile_errno(write(fd, "owned", 5));
	close(fd);
	return ret;
}

/* Sockets in the folders that pillion puts into a machine, but for its own broker's. */
static void try_socket(const char *path, int type, void *arg)
{
	if (type == DT_SOCK && strcmp(strrchr(path, '/'), "/broker.sock"))
		tally_add(arg, connect_unix(path), path);
}

static int other_sockets(const struct hostile_case *c)
{
	struct tally t = {c, SKIPPED};

	hostile_walk("/run/pillion", 4, try_socket, &t);
	return tally_result(&t, -ENOENT);
}

/* ---- the broker ---- */

static void note_broker(const char *path, int type, void *arg)
{
	if (type == DT_SOCK && !strcmp(strrchr(path, '/'), "/broker.sock"))
		snprintf(arg, 256, "%s", path);
}

static const char *broker(void)
{
	static char path[256];

	hostile_walk("/run/pillion", 3, note_broker, path);
	return *path ? path : NULL;
}

enum { BROKER_UNLINK, BROKER_RENAME, BROKER_MODE, BROKER_LINK, BROKER_BESIDE };

/* To stand in for the broker, or to have it change a file of the user's by a link. */
static int change_broker(const struct hostile_case *c)
{
	const char *path = broker();
	char beside[300];

	if (!path)
		return hostile_skip("no broker");
	hostile_make_writable(path);
	snprintf(beside, sizeof(beside), "%s.new", path);
	unlink(beside);
	switch (strtol(c->arg, NULL, 10)) {
	case BROKER_UNLINK:
		return hostile_errno(unlink(path));
	case BROKER_RENAME:
		return rename(path, beside) ? -errno : hostile_errno(rename(beside, path));
	case BROKER_MODE:
		return hostile_errno(chmod(path, 0600));
	case BROKER_LINK:
		return symlink("/etc/passwd", beside) ? -errno : hostile_errno(unlink(beside));
	default:
		return mknod(beside, S_IFSOCK | 0666, 0) ? -errno : hostile_errno(unlink(beside));
	}
}

static void *close_when_told(void *arg)
{
	int *fd = arg;

	__atomic_store_n(&fd[1], 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&fd[1], __ATOMIC_ACQUIRE) == 1)
		;
	for (volatile int i = 0; i < 2000; i++)
		; /* the call has taken hold of it, and is copying */
	close(fd[0]);
	return NULL;
}

/* A socket with data that nobody will acknowledge: its peer stays open here, and never reads. */
static int make_lingering(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct linger linger = {1, 3600};
	socklen_t size = sizeof(at);
	static char text[1 << 16];
	int server = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(server, (struct sockaddr *)&at, size) || listen(server, 1) ||
	    getsockname(server, (struct sockaddr *)&at, &size) ||
	    connect(fd, (struct sockaddr *)&at, size))
		return -errno;
	if (accept(server, NULL, NULL) < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	while (send(fd, text, sizeof(text), MSG_DONTWAIT) > 0)
		;
	return fd;
}

static int send_and_let_go(int fd)
{
	int *state = calloc(2, sizeof(*state));
	size_t bytes = 32 << 10;
	/* pages that are not there yet make the call slow enough for the other thread's close() */
	struct iovec iov = {mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				 -1, 0),
			    bytes};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = control.bytes,
			   .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *head = CMSG_FIRSTHDR(&m);
	pthread_t closer;
	int ret;

	if (!state)
		return -ENOMEM;
	state[0] = make_lingering();
	if (state[0] < 0)
		return state[0];
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), state, sizeof(int));
	if (pthread_create(&closer, NULL, close_when_told, state))
		return -EAGAIN;
	while (__atomic_load_n(&state[1], __ATOMIC_ACQUIRE) == 0)
		;
	__atomic_store_n(&state[1], 2, __ATOMIC_RELEASE);
	ret = hostile_errno(sendmsg(fd, &m, MSG_DONTWAIT));
	usleep(2000); /* not joined: it may be the one that waits */
	return ret;
}

struct sending {
	int fd, ret, done;
};

static void *send_one(void *arg)
{
	struct sending *s = arg;

	s->ret = send_and_let_go(s->fd);
	__atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Where the message is refused, who sends it may be the last to hold the socket, and waits. */
int hostile_send_lingering(int fd)
{
	struct sending *s = calloc(1, sizeof(*s));
	pthread_t sender;

	if (!s)
		return -ENOMEM;
	s->fd = fd;
	if (pthread_create(&sender, NULL, send_one, s))
		return -EAGAIN;
	for (int i = 0; i < 300; i++) {
		if (__atomic_load_n(&s->done, __ATOMIC_ACQUIRE))
			return s->ret;
		usleep(1000);
	}
	return -EPERM;
}

enum { LINGERING = 8, FLOOD = 3000 };

static int linger_at_broker(const struct hostile_case *c)
{
	const char *path = broker();

	(void)c;
	if (!path)
		return hostile_skip("no broker");
	for (int i = 0; i < LINGERING; i++) {
		int fd = connect_unix(path);
		int ret = fd < 0 ? fd : hostile_send_lingering(fd);

		if (ret < 0)
			hostile_note("%s", strerrorname_np(-ret));
		if (fd >= 0 && i % 2)
			close(fd);
	}
	hostile_hold();
	return 0;
}

static int flood_broker(const struct hostile_case *c)
{
	const char *path = broker();
	int n = 0;

	(void)c;
	if (!path)
		return hostile_skip("no broker");
	for (int i = 0; i < FLOOD; i++)
		n += connect_unix(path) >= 0;
	hostile_note("%d connections", n);
	hostile_hold();
	return 0;
}

/* ---- the network ---- */

static int connect_ip(const char *address, const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)strtol(port, NULL, 10))};

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		return -EINVAL;
	return connect_to(AF_INET, &to, sizeof(to));
}

static int gateway(char *address, int size)
{
	FILE *f = fopen("/proc/net/route", "re");
	unsigned to, by;
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %x %x", &to, &by) != 2 || to)
			continue;
		fclose(f);
		return inet_ntop(AF_INET, &by, address, (socklen_t)size) ? 0 : -errno;
	}
	if (f)
		fclose(f);
	return -ENETUNREACH;
}

/* The host's 127.0.0.1, which the driver listens on, by an address that may lead there. */
static int localhost(const struct hostile_case *c)
{
	const char *port = hostile_told("port");
	char address[64];
	int ret;

	if (!port)
		return hostile_skip("the host listens on no port");
	snprintf(address, sizeof(address), "%s", c->arg);
	ret = *address ? 0 : gateway(address, sizeof(address));
	hostile_note("%s:%s", address, port);
	return ret ? ret : connect_ip(address, port);
}

/* A frame of our own making; the driver says whether it came out. */
static int frame(const struct hostile_case *c)
{
	unsigned char packet[64] = {0x45, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2};
	struct sockaddr_ll to = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(ETH_P_IP),
				 .sll_halen = 6};
	int fd = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP));
	struct ifreq card = {.ifr_name = "eth0"};
	const char *port = hostile_told("port");
	unsigned sum = 0;
	uint16_t udp[4] = {htons(4711), htons((uint16_t)strtol(port ? port : "9", NULL, 10)),
			   htons(13), 0};

	if (fd < 0)
		return -errno;
	if (ioctl(fd, SIOCGIFINDEX, &card))
		return hostile_skip("no card");
	inet_pton(AF_INET, c->arg, packet + 16);
	for (int i = 0; i < 20; i += 2)
		sum += (unsigned)(packet[i] << 8 | packet[i + 1]);
	sum = ~((sum & 0xffff) + (sum >> 16));
	packet[10] = (unsigned char)(sum >> 8);
	packet[11] = (unsigned char)sum;
	memcpy(packet + 20, udp, sizeof(udp));
	memcpy(packet + 28, "owned", 5);
	to.sll_ifindex = card.ifr_ifindex;
	memset(to.sll_addr, 0xff, 6);
	return hostile_errno(sendto(fd, packet, 33, 0, (struct sockaddr *)&to, sizeof(to)));
}

static int vsock(const struct hostile_case *c)
{
	const char *port = hostile_told("vsock");
	struct sockaddr_vm to = {.svm_family = AF_VSOCK,
				 .svm_cid = (unsigned)strtoul(c->arg, NULL, 10),
				 .svm_port = (unsigned)strtoul(port ? port : "5999", NULL, 10)};

	return connect_to(AF_VSOCK, &to, sizeof(to));
}

/* ---- netlink ---- */

struct ask {
	struct nlmsghdr head;
	char body[256];
};

static int netlink(int protocol, struct ask *ask, void *answer, size_t size)
{
	struct sockaddr_nl to = {.nl_family = AF_NETLINK};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	struct timeval soon = {1, 0};
	ssize_t n;
	int ret;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
	ret = hostile_errno(
		sendto(fd, ask, ask->head.nlmsg_len, 0, (struct sockaddr *)&to, sizeof(to)));
	n = ret < 0 ? 0 : recv(fd, answer, size, 0);
	if (ret >= 0 && n < 0)
		ret = -errno;
	if (ret >= 0 && ((struct nlmsghdr *)answer)->nlmsg_type == NLMSG_ERROR)
		ret = ((struct nlmsgerr *)NLMSG_DATA(answer))->error;
	close(fd);
	return ret < 0 ? ret : (int)n;
}

static int audit(const struct hostile_case *c)
{
	struct ask ask = {.head = {.nlmsg_len = NLMSG_LENGTH(40),
				   .nlmsg_type = (uint16_t)strtol(c->arg, NULL, 10),
				   .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK}};
	static char answer[8192];

	return netlink(NETLINK_AUDIT, &ask, answer, sizeof(answer));
}

/* Whether the driver's listening socket is seen. */
static int list_sockets(const struct hostile_case *c)
{
	struct inet_diag_req_v2 want = {.sdiag_family = AF_INET,
					.sdiag_protocol = IPPROTO_TCP,
					.idiag_states = 1 << 10};
	struct ask ask = {.head = {.nlmsg_len = NLMSG_LENGTH(sizeof(want)),
				   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
				   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
	static char answer[65536];
	const char *port = hostile_told("port");
	int n;

	(void)c;
	memcpy(ask.body, &want, sizeof(want));
	n = netlink(NETLINK_SOCK_DIAG, &ask, answer, sizeof(answer));
	for (struct nlmsghdr *h = (void *)answer; n > 0 && NLMSG_OK(h, (unsigned)n);
	     h = NLMSG_NEXT(h, n)) {
		struct inet_diag_msg *m = NLMSG_DATA(h);

		if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY && port &&
		    ntohs(m->id.idiag_sport) == strtol(port, NULL, 10))
			return 0;
	}
	return n < 0 ? n : -ENOENT;
}

/* What udev of the host would take for the kernel's word. */
static int uevent(const struct hostile_case *c)
{
	static const char text[] = "add@/devices/owned\0ACTION=add\0DEVPATH=/devices/owned\0"
				   "SUBSYSTEM=owned\0SEQNUM=1";
	struct sockaddr_nl to = {.nl_family = AF_NETLINK, .nl_groups = 1};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

	(void)c;
	if (fd < 0)
		return -errno;
	return hostile_errno(sendto(fd, text, sizeof(text), 0, (struct sockaddr *)&to, sizeof(to)));
}

#define NOBODY                                                                                     \
	{                                                                                          \
		ECONNREFUSED, ENOENT, EACCES, EPERM, ENOTSOCK, ENXIO, EOPNOTSUPP                   \
	}
#define NO_WAY                                                                                     \
	{                                                                                          \
		ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, ECONNRESET, EACCES, EPERM,     \
			EADDRNOTAVAIL                                                              \
	}
#define NO_VSOCK                                                                                   \
	{                                                                                          \
		ENODEV, ENETUNREACH, EADDRNOTAVAIL, EAFNOSUPPORT, EPERM, EACCES, ECONNRESET,       \
			ETIMEDOUT, EHOSTUNREACH                                                    \
	}
#define KEPT                                                                                       \
	{                                                                                          \
		EROFS, EPERM, EACCES, EBUSY                                                        \
	}

static const struct hostile_case cases[] = {
	{"socket_abstract", ON_BOTH, abstract, NOBODY},
	{"socket_in_share", ON_BOTH, by_path, NOBODY, "/mnt/host/ro/sock"},
	{"fifo_in_share",
	 ON_BOTH,
	 fifo,
	 {ENXIO, EACCES, EPERM, ENOENT, EROFS},
	 "/mnt/host/ro/fifo"},
	{"other_sockets", ON_NS, other_sockets, {ENOENT, EACCES, EPERM}},
	{"broker_rename", ON_NS, change_broker, KEPT, "1"},
	{"broker_mode", ON_NS, change_broker, KEPT, "2"},
	{"broker_link", ON_NS, change_broker, KEPT, "3"},
	{"broker_beside", ON_NS, change_broker, KEPT, "4"},
	{"broker_unlink", ON_NS, change_broker, KEPT, "0"},
	{"broker_lingering", ON_NS, linger_at_broker, {0}},
	{"broker_flood", ON_NS, flood_broker, {0}},
	{"localhost_gateway", ON_BOTH, localhost, NO_WAY, ""},
	{"localhost_names", ON_BOTH, localhost, NO_WAY, "10.255.255.254"},
	{"localhost_link", ON_BOTH, localhost, NO_WAY, "169.254.2.1"},
	{"localhost_own", ON_BOTH, localhost, NO_WAY, "127.0.0.1"},
	{"localhost_any", ON_BOTH, localhost, NO_WAY, "0.0.0.0"},
	{"localhost_slirp", ON_BOTH, localhost, NO_WAY, "10.0.2.2"},
	{"frame_to_localhost", ON_BOTH, frame, {0}, "127.0.0.1"},
	{"frame_to_any", ON_BOTH, frame, {0}, "0.0.0.0"},
	{"vsock_local", ON_NS, vsock, NO_VSOCK, "1"},
	{"vsock_host", ON_BOTH, vsock, NO_VSOCK, "2"},
	{"vsock_other_machine", ON_BOTH, vsock, NO_VSOCK, "3"},
	{"audit_status", ON_NS, audit, {EPERM, EACCES, ECONNREFUSED, EPROTONOSUPPORT}, "1000"},
	{"audit_message", ON_NS, audit, {EPERM, EACCES, ECONNREFUSED, EPROTONOSUPPORT}, "1105"},
	{"list_sockets", ON_NS, list_sockets, {ENOENT, EPERM, EACCES, EPROTONOSUPPORT}},
	{"uevent", ON_NS, uevent, {0}},
};

const struct hostile_family hostile_sockets = {cases, ARRAY_SIZE(cases)};
