/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: pasta passes packets on from a process of the host, where an address of
 * loopback is the host's own; before August 2024 it does not look.  Nor does Linux keep a program
 * from sending there: a socket bound to the card has its packets to 127.0.0.1 leave by it.  So the
 * kernel drops them on their way to pasta, by a filter on pasta's end of the card.  So it does with
 * what goes to the host's other addresses.  These change, and we keep the descriptor to say so.
 *
 * The filter must be there before the first packet: the sandbox runs already where pasta is started
 * anew, and root in there can send at once.  It must also not be the sandbox's to remove, as rules
 * of its network namespace would be.  So the card is made here, filter and all, and pasta gets it
 * in place of its own: seccomp stops pasta at the ioctl() that would make it (TUNSETIFF) and asks
 * us; we put our descriptor in the place of the one it has open, and let the call succeed.
 * Afterwards nobody is there to be asked, and such a call fails. */
#include "machine/tap.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <netinet/in.h>
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
#include "base/own_addrs.h"
#include "port/userns.h"

enum { WAIT_MS = 3000 };

enum { /* offsets in a frame */
       TYPE_AT = 12,
       IP4_TO_AT = ETH_HLEN + 16,
       IP6_NEXT_AT = ETH_HLEN + 6,
       IP6_TO_AT = ETH_HLEN + 24,
};

#define LOAD(size, at) BPF_STMT(BPF_LD | BPF_ABS | (size), (uint32_t)(at))
#define RETURN(value)  BPF_STMT(BPF_RET | BPF_K, value)

/* ---- what may leave ---- */

enum { DROP = 0 };

struct program {
	struct sock_filter *code; /* of TAP_MAX_CODE */
	unsigned short n;
};

static void put(struct program *p, struct sock_filter op)
{
	assert(p->n < TAP_MAX_CODE);
	p->code[p->n++] = op;
}

static void load(struct program *p, uint16_t size, int at)
{
	put(p, (struct sock_filter)LOAD(size, at));
}

static void answer(struct program *p, uint32_t value)
{
	put(p, (struct sock_filter)RETURN(value));
}

/* Goes on if what was loaded is @k; else past the @n lines that follow. */
static void only_if(struct program *p, uint32_t k, uint8_t n)
{
	put(p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 0, n));
}

static void drop_if(struct program *p, uint32_t k)
{
	only_if(p, k, 1);
	answer(p, DROP);
}

static uint32_t word(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
	       bytes[3];
}

static bool is_ip4(const uint8_t *addr)
{
	return !memcmp(addr, own_addrs_mapped, sizeof(own_addrs_mapped));
}

/* To others than 0.0.0.0/8, 127.0.0.0/8 and the host's. */
static void put_ip4(struct program *p, const struct own_addrs *own)
{
	load(p, BPF_B, IP4_TO_AT); /* the first byte */
	drop_if(p, 0);
	drop_if(p, 127);
	load(p, BPF_W, IP4_TO_AT);
	for (uint32_t i = 0; i < own->n; i++)
		if (is_ip4(own->at[i]))
			drop_if(p, word(own->at[i] + sizeof(own_addrs_mapped)));
	answer(p, UINT32_MAX);
}

/* To others than ::/80 and the host's; to link-local addresses only ICMP. */
static void put_ip6(struct program *p, const struct own_addrs *own)
{
	load(p, BPF_W, IP6_TO_AT);
	only_if(p, 0, 5);
	load(p, BPF_W, IP6_TO_AT + 4);
	only_if(p, 0, 3);
	load(p, BPF_H, IP6_TO_AT + 8);
	drop_if(p, 0);
	if (own->closed) {
		load(p, BPF_H, IP6_TO_AT);
		put(p, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xffc0));
		only_if(p, 0xfe80, 4);
		load(p, BPF_B, IP6_NEXT_AT);
		only_if(p, IPPROTO_ICMPV6, 1);
		answer(p, UINT32_MAX);
		answer(p, DROP);
	}
	load(p, BPF_W, IP6_TO_AT + 12);
	for (uint32_t i = 0; i < own->n; i++) {
		const uint8_t *addr = own->at[i];

		if (is_ip4(addr))
			continue;
		only_if(p, word(addr + 12), 8);
		for (int at = 8; at >= 0; at -= 4) {
			load(p, BPF_W, IP6_TO_AT + at);
			only_if(p, word(addr + at), (uint8_t)(at / 2 + 1));
		}
		answer(p, DROP);
		load(p, BPF_W, IP6_TO_AT + 12); /* for the next one */
	}
	answer(p, UINT32_MAX);
}

/* As may_leave() of virtio_net.c.  What ends before what is looked at is dropped. */
unsigned short tap_filter(struct sock_filter *code, const struct own_addrs *own)
{
	struct program p = {.code = code};
	unsigned short at;

	load(&p, BPF_H, TYPE_AT);
	only_if(&p, ETH_P_ARP, 1);
	answer(&p, UINT32_MAX);
	put(&p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 1, 0));
	at = p.n;
	put(&p, (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 0));
	put_ip4(&p, own);
	code[at].k = p.n - at - 1u;
	put(&p, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 1, 0));
	answer(&p, DROP);
	put_ip6(&p, own);
	return p.n;
}

int tap_keep_from(int card_fd, const struct own_addrs *own)
{
	struct sock_filter code[TAP_MAX_CODE];
	struct sock_fprog filter = {.len = tap_filter(code, own), .filter = code};

	return ioctl(card_fd, TUNATTACHFILTER, &filter) ? -errno : 0;
}

/* ---- what pasta asks for ---- */

/* By line: jumps to the line where the value is, or is not, @k. */
#define IS(line, k, yes, no)                                                                       \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(k), (yes) - (line)-1, (no) - (line)-1)

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
	const struct own_addrs *own;
};

static int send_back(const struct child *child, int fd)
{
	return pil_send_fds(child->answer_fd, "f", 1, &fd, 1);
}

static int make_card(void *arg)
{
	const struct child *child = arg;
	struct ifreq card = {.ifr_name = TAP_NAME, .ifr_flags = IFF_TAP | IFF_NO_PI};
	_auto_fd int fd = -1;
	int ret;

	if (setns(child->net_fd, CLONE_NEWNET))
		return -errno;
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &card))
		return -errno;
	ret = tap_keep_from(fd, child->own);
	return ret ? ret : send_back(child, fd);
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

pid_t tap_spawn_pasta(pid_t target, int net_fd, const struct own_addrs *own, char *const *argv,
		      const struct proc_opts *opts, int *card_fd_out, struct pil_err *err)
{
	_auto_fd int read_fd = -1;
	_auto_fd int write_fd = -1;
	_auto_fd int card_fd = -1;
	_auto_fd int listener_fd = -1;
	struct child child = {.net_fd = net_fd, .own = own};
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
	if (!ret) {
		*card_fd_out = pil_take_fd(&card_fd);
		return pid;
	}
	proc_stop(pid, 0);
	return ret == -ECHILD ? pil_err_say(err, ECHILD, "pasta ended at once") : say(ret, err);
}
