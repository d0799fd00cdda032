/* SPDX-License-Identifier: Apache-2.0
 *
 * spec.h -- all that a supervisor is told of the machine it starts: struct machine_spec, and its
 * text, a JSON object that docs/machine-spec.md describes key by key.
 *
 * The command line makes it from the registry and the settings (distro_spec.h).  Anybody else may
 * write one.  A supervisor reads it from a descriptor, and reads no settings of the user. */
#ifndef PIL_SPEC_H
#define PIL_SPEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/init_options.h"
#include "base/compiler.h"
#include "base/err.h"

enum {
	SPEC_VERSION = 1,
	SPEC_MAX_BYTES = 64 << 10,
	SPEC_MAX_SHARES = INIT_MAX_MOUNTS,
	SPEC_MAX_ENV = INIT_MAX_ENV,
	SPEC_MAX_ENV_BYTES = 16 << 10, /* of all variables */
};

struct machine_share { /* a host folder seen in the machine; heap */
	char *host, *guest;
	bool writable;
	bool needed; /* no machine without it */
	bool direct; /* a sandbox may use the sockets and FIFOs in it */
	bool plain;  /* direct, but a sandbox with sockets or FIFOs in it is refused */
};

struct machine_spec { /* heap strings: spec_finish() */
	char *name;
	char *folder, *disk; /* the root; one of them: a sandbox's tree or a microVM's image */
	char *lock;      /* work.h: the machine is not started while it is worked on; NULL: none */
	char *user;      /* of commands that name none */
	int64_t idle_ms; /* < 0: never stops by itself */
	char *env[SPEC_MAX_ENV + 1]; /* NAME=VALUE, NULL-terminated; for commands */
	struct machine_share shares[SPEC_MAX_SHARES];
	int n_shares;
	bool accelerators; /* programs find the host's devices */

	int64_t memory_bytes; /* 0: half of the host's */
	int64_t processes;    /* of a sandbox; 0: a quarter of what the user may have */
	int64_t processors;   /* of a microVM; 0: all of the host's */
	int64_t swap_bytes;   /* of a microVM; < 0: a quarter of its memory */

	bool network;       /* by pasta or passt */
	bool forward_ports; /* ports that programs listen on are open on the host's 127.0.0.1 */
	bool host_loopback; /* the gateway's address is the host's loopback */

	bool system_call_filter; /* of a sandbox */

	/* of a microVM */
	char *kernel;         /* a suite of the kernel kit, or a path; NULL: the kit's first */
	char *kernel_options; /* added to ours; NULL: nothing */
	bool nested;          /* it may use KVM itself */
	int reclaim;          /* enum init_reclaim */
};

void spec_begin(struct machine_spec *spec); /* defaults; no name and no root yet */
void spec_finish(struct machine_spec *spec);

/* Its text; heap.  NULL with @err: a string in it is not UTF-8. */
char *spec_write(const struct machine_spec *spec, struct pil_err *err);

/* Reads a text.  Unknown keys, keys of the other kind of machine, values out of their range and
 * folders on top of pillion's own are refused.  0, or -EINVAL with the key in @err. */
int spec_parse(struct machine_spec *spec, const char *text, size_t len,
	       struct pil_err *err) PIL_MUST_CHECK;

/* Reads a text from @fd until its end, which must come within seconds, and parses it. */
int spec_read(struct machine_spec *spec, int fd, struct pil_err *err) PIL_MUST_CHECK;

/* A descriptor that spec_read() reads @spec from, or -errno. */
int spec_open(const struct machine_spec *spec, struct pil_err *err) PIL_MUST_CHECK;

/* What pillion-init is told of it, whichever back end runs it.  Borrows from @spec. */
void spec_init_options(const struct machine_spec *spec, struct init_options *o);

/* For tests: calls @each with every key, with its section before it ("limits.memory"). */
void spec_keys(void (*each)(const char *key, void *arg), void *arg);

#endif
