/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: pasta passes packets on from a process of the host, where an address of
 * loopback is the host's own; before August 2024 it does not look.  Nor does Linux keep a program
 * from sending there: a socket bound to the card has its packets to 127.0.0.1 leave by it.  So the
 * kernel drops them on their way to pasta, by a filter on pasta's end of the card.
 *
 * The filter must be there before the first packet: the sandbox runs already where pasta is started
 * anew, and root in there can send at once.  It must also not be the sandbox's to remove, as rules
 * of its network namespace would be.  So the card is made here, filter and all, and pasta gets it
 * in place of its own: seccomp stops pasta at the ioctl() that would make it (TUNSETIFF) and asks
 * us; we put our descriptor in the place of the one it has open, and let the call succeed.
 * Afterwards nobody is there to be asked, and such a call fails. */
#include "machine/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "port/userns.h"

enum { WAIT_MS = 3000 };

enum { /* offsets in a frame */
       TYPE_AT = 12,
       IP4_TO_AT = ETH_HLEN + 16,
       IP6_TO_AT = ETH_HLEN + 24,
};

/* Classic BPF, by line: loads, and jumps to the line where the value is, or is not, @k. */
#define LOAD(size, at) BPF_STMT(BPF_LD | BPF_ABS | (size), (uint32_t)(at))
#define IS(line, k, yes, no)                                                                       \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(k), (yes) - (line)-1, (no) - (line)-1)
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)

/* As may_leave() of virtio_net.c: ARP, and IP to others than 0.0.0.0/8, 127.0.0.0/8 and ::/80.
 * What ends before what is looked at is dropped. */
enum { DROP = 13, PASS = 14 };

static struct sock_filter frame_filter[] = {
	[0] = LOAD(BPF_H, TYPE_AT),       [1] = IS(1, ETH_P_ARP, PASS, 2),
	[2] = IS(2, ETH_P_IP, 3, 6),      [3] = LOAD(BPF_B, IP4_TO_AT), /* the first byte */
	[4] = IS(4, 0, DROP, 5),          [5] = IS(5, 127, DROP, PASS),
	[6] = IS(6, ETH_P_IPV6, 7, DROP), [7] = LOAD(BPF_W, IP6_TO_AT), /* the first ten */
	[8] = IS(8, 0, 9, PASS),          [9] = LOAD(BPF_W, IP6_TO_AT + 4),
	[10] = IS(10, 0, 11, PASS),       [11] = LOAD(BPF_H, IP6_TO_AT + 8),
	[12] = IS(12, 0, DROP, PASS),     [DROP] = RETURN(0),
	[PASS] = RETURN(UINT32_MAX),
};

enum { ALLOW = 4, ASK = 5 };

static struct sock_filter call_filter[] = {
	[0] = LOAD(BPF_W, offsetof(struct seccomp_data, nr)),
	[1] = IS(1, SYS_ioctl, 2, ALLOW),
	[2] = LOAD(BPF_W, offsetof(struct seccomp_data, args[1])), /* the half that counts */
	[3] = IS(3, TUNSETIFF, ASK, ALLOW),
	[ALLOW] = RETURN(SECCOMP_RET_ALLOW),
	[ASK] = RETURN(SECCOMP_RET_USER_NOTIF),
};

/* ---- in children, in the sandbox's user namespace: 0 or -errno */

struct child {
	int net_fd;    /* the sandbox's network namespace */
	int answer_fd; /* takes a descriptor */
};

static int send_back(const struct child *child, int fd)
{
	return pil_send_fds(child->answer_fd, "f", 1, &fd, 1);
}

static int make_card(void *arg)
{
	const struct child *child = arg;
	struct sock_fprog filter = {ARRAY_SIZE(frame_filter), frame_filter};
	struct ifreq card = {.ifr_name = TAP_NAME, .ifr_flags = IFF_TAP | IFF_NO_PI};
	_auto_fd int fd = -1;

	if (setns(child->net_fd, CLONE_NEWNET))
		return -errno;
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &card) || ioctl(fd, TUNATTACHFILTER, &filter))
		return -errno;
	return send_back(child, fd);
}

/* For pasta, before it is executed. */
static int have_card_asked_for(void *arg)
{
	struct sock_fprog filter = {ARRAY_SIZE(call_filter), call_filter};
	_auto_fd int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				       SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter);

	return fd < 0 ? -errno : send_back(arg, fd);
}

/* ---- in the supervisor */

/* Waits for pasta's asking and gives it the card. */
static int hand_over(int listener_fd, int card_fd)
{
	struct pollfd p = {.fd = listener_fd, .events = POLLIN};
	struct seccomp_notif asked = {0};
	struct seccomp_notif_addfd card = {.flags = SECCOMP_ADDFD_FLAG_SETFD,
					   .srcfd = (uint32_t)card_fd,
					   .newfd_flags = O_CLOEXEC};
	struct seccomp_notif_resp answer = {0};

	if (poll(&p, 1, WAIT_MS) <= 0)
		return -ETIMEDOUT;
	if (!(p.revents & POLLIN))
		return -ECHILD; /* it has ended */
	if (ioctl(listener_fd, SECCOMP_IOCTL_NOTIF_RECV, &asked))
		return -errno;
	card.id = answer.id = asked.id;
	card.newfd = (uint32_t)asked.data.args[0];
	return ioctl(listener_fd, SECCOMP_IOCTL_NOTIF_ADDFD, &card) < 0 ||
			       ioctl(listener_fd, SECCOMP_IOCTL_NOTIF_SEND, &answer)
		       ? -errno
		       : 0;
}

static int receive(int sock)
{
	int fd = -1, n = 1;
	char c;
	ssize_t got = pil_recv_fds(sock, &c, 1, &fd, &n, MSG_DONTWAIT);

	return got < 0 ? (int)got : fd;
}

static int say(int ret, struct pil_err *err)
{
	return pil_err_set(err, -ret, "make the network card of the sandbox");
}

pid_t tap_spawn_pasta(pid_t target, int net_fd, char *const *argv, const struct proc_opts *opts,
		      struct pil_err *err)
{
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	_auto_fd int card_fd = -1;
	_auto_fd int listener_fd = -1;
	struct child child = {.net_fd = net_fd};
	int pair[2], ret;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return say(-errno, err);
	read_fd = pair[0];
	write_fd = pair[1];
	child.answer_fd = write_fd;
	ret = userns_join_call(target, make_card, &child, err);
	if (ret)
		return say(ret, err);
	card_fd = receive(read_fd);
	if (card_fd < 0)
		return say(card_fd, err);
	pid = userns_join_spawn(target, argv, opts, have_card_asked_for, &child, err);
	if (pid < 0)
		return pid;
	listener_fd = receive(read_fd);
	ret = listener_fd < 0 ? listener_fd : hand_over(listener_fd, card_fd);
	if (!ret)
		return pid;
	proc_stop(pid, 0);
	return ret == -ECHILD ? pil_err_say(err, ECHILD, "pasta ended at once") : say(ret, err);
}
