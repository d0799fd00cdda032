/* SPDX-License-Identifier: Apache-2.0
 *
 * agent.h -- how the command line talks to pillion-init, the agent in a machine.
 *
 * One stream per command (AF_UNIX to a sandbox, vsock to a microVM); no descriptors are passed.
 * Frames: struct agent_frame, then len bytes.  The client sends START first, and START_MORE until
 * all strings are there.  Data for the command's input is sent within the credit the agent has
 * granted, so that signals and window sizes never wait behind data the command does not read;
 * output is held back by the stream itself.
 *
 * Each of the command's three streams is a terminal if the client's is; there is one terminal.
 * With START_ASKED the agent says with WANTED whether somebody in there waits for keys now, and the
 * client leaves its terminal alone while nobody does.
 *
 * Both ends treat the other as hostile: a frame that breaks a rule ends the stream. */
#ifndef PIL_AGENT_H
#define PIL_AGENT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	AGENT_VERSION = 2,
	AGENT_MAX_FRAME = 64 << 10,
	AGENT_CREDIT = 256 << 10,    /* granted by STARTED */
	AGENT_MAX_STRINGS = 8 << 20, /* of a request, in bytes: more than execve() takes */
};

/* vsock ports of a microVM.  The agent's clients come to the guest; the guest comes to the host
 * (CID 2) for its options and for the broker.
 *
 * The life connection: host -> guest, uint32_t length and as many bytes of NUL-terminated strings,
 * the options of pillion-init, then from time to time int64_t, the time in ns (CLOCK_REALTIME);
 * guest
 * -> host, one byte when the agent serves, then announcements of ports.  Its end is the machine's.
 */
enum {
	AGENT_VSOCK_PORT = 1024,   /* in the guest: one stream per command */
	LIFE_VSOCK_PORT = 1025,    /* on the host */
	BROKER_VSOCK_PORT = 1026,  /* on the host */
	FORWARD_VSOCK_PORT = 1027, /* in the guest: one stream per forwarded connection */
};

/* localhostForwarding.  The agent announces which TCP ports programs listen on, whenever that
 * changes: uint16_t count, then count * uint16_t port, all in the host's byte order, on the stream
 * it said on that it serves.  A stream to the forwarder (vsock, or the sandbox's --forward-fd)
 * begins with the uint16_t port it is for; after that it is the connection's. */
enum { AGENT_MAX_PORTS = 64 };

enum agent_type {
	/* client -> agent */
	AGENT_START = 1, /* struct agent_start + its strings */
	AGENT_STDIN,     /* data; empty: end of input */
	AGENT_WINSIZE,   /* struct agent_winsize */
	AGENT_SIGNAL,    /* uint32_t signal number, for the command's process group */
	/* agent -> client */
	AGENT_STARTED,     /* empty; AGENT_CREDIT bytes of input may be sent */
	AGENT_CREDIT_MORE, /* uint32_t: so many bytes more */
	AGENT_STDOUT,      /* data */
	AGENT_STDERR,      /* data */
	AGENT_EXIT,        /* uint32_t: exit status, 128 + N for signal N; last frame */
	AGENT_ERROR,       /* text for people: the command could not be started; last frame */
	/* client -> agent */
	AGENT_START_MORE, /* more strings of START */
	AGENT_KEYS, /* typed at the terminal while the input is none; what finds no room is lost */
	/* agent -> client */
	AGENT_TERMINAL, /* data for the terminal while neither the output nor the errors are one */
	AGENT_WANTED,   /* uint32_t: 1: somebody waits for keys; 0: nobody does */
	AGENT_NUM_TYPES
};

struct agent_frame {
	uint8_t type; /* enum agent_type */
	uint8_t zero[3];
	uint32_t len; /* <= AGENT_MAX_FRAME */
};
static_assert(sizeof(struct agent_frame) == 8, "agent_frame");

struct agent_winsize {
	uint16_t rows, cols, width, height; /* the last two in pixels, or 0 */
};

/* Linux' struct termios: what the client's terminal is set to. */
struct agent_termios {
	uint32_t iflag, oflag, cflag, lflag;
	uint8_t cc[20]; /* the first 19 count */
};

enum agent_start_flags {
	AGENT_START_TTY_IN = 1 << 0, /* this stream is the terminal */
	AGENT_START_SHELL = 1 << 1, /* through the user's shell: no argument: the shell itself; one:
				       its command line; several: a command, as given */
	AGENT_START_LOGIN = 1 << 2, /* the shell is a login shell */
	AGENT_START_TTY_OUT = 1 << 3,
	AGENT_START_TTY_ERR = 1 << 4,
	AGENT_START_ONE_OUT = 1 << 5, /* output and errors are one pipe */
	AGENT_START_ASKED = 1 << 6,   /* the client wants to know who waits for keys */
	AGENT_START_TTYS = AGENT_START_TTY_IN | AGENT_START_TTY_OUT | AGENT_START_TTY_ERR,
};

/* Followed by NUL-terminated strings: user (empty: the distro's default), working directory (empty:
 * the user's home; "~" likewise; "?FOLDER": if it is there), then n_args arguments, then n_env
 * NAME=VALUE settings. */
struct agent_start {
	uint16_t version;
	uint16_t flags;
	uint32_t n_args, n_env;
	uint32_t strings_bytes;
	struct agent_winsize winsize;
	struct agent_termios termios;
};
static_assert(sizeof(struct agent_start) == 60, "agent_start");

static inline bool agent_frame_valid(const struct agent_frame *f)
{
	return f->type > 0 && f->type < AGENT_NUM_TYPES && f->len <= AGENT_MAX_FRAME;
}

/* A start request taken apart; the pointers lie in the frame's body. */
struct agent_request {
	struct agent_start start;
	const char *user, *cwd;
	const char **args; /* NULL-terminated, in caller's storage */
	const char **env;  /* likewise */
};

/* Takes what @body, @len bytes of a START frame, begins with.  False: malformed or too much. */
bool agent_start_parse(struct agent_start *start, const char *body, size_t len);

/* Parses @len bytes, all of a request; @storage holds @capacity pointers.  False: malformed or too
 * many strings. */
bool agent_request_parse(struct agent_request *r, const char *body, size_t len,
			 const char **storage, size_t capacity);

#endif
