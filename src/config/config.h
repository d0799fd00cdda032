/* SPDX-License-Identifier: Apache-2.0
 *
 * config.h -- the user's settings: $XDG_CONFIG_HOME/pillion/config, an ini file with the keys of
 * .wslconfig that make sense here and an [accel] section of our own; and distros/NAME/machine.conf,
 * with the same keys for one machine.  docs/config.md lists them. */
#ifndef PIL_CONFIG_H
#define PIL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/init_options.h"
#include "base/compiler.h"
#include "base/err.h"
#include "config/state.h"

enum { CONFIG_MAX_ENV = 16, CONFIG_MAX_SHARES = 7 };

struct config_share { /* a folder of the host that machines see as /mnt/host/NAME */
	char *path;
	const char *name; /* the last part of .path */
	bool writable;
	bool sockets; /* read-only, but a sandbox may use sockets and FIFOs in it */
	bool unsafe;  /* may be one by which a machine reaches all that is the user's */
};

struct config {
	int64_t vm_idle_timeout_ms; /* [wsl2] vmIdleTimeout, default 60000; < 0: never */
	unsigned default_version;   /* [wsl2] defaultVersion: 0 auto, 1 sandbox, 2 microVM */
	struct config_share shares[CONFIG_MAX_SHARES]; /* [wsl2] share =
							  PATH[:rw|:sockets][:unsafe], repeatable */
	int n_shares;
	char *distribution_list_url; /* [wsl2] DistributionListUrl; NULL: the list of pillion's own
				      */
	char *distribution_list_url_append; /* [wsl2] DistributionListUrlAppend; NULL: none */
	/* [wsl2], of microVMs */
	uint64_t memory_bytes; /* memory; 0: half of the host's */
	unsigned processors;   /* processors; 0: all of the host's */
	uint64_t swap_bytes;   /* swap; 0: none; default: a quarter of the memory */
	bool swap_set;         /* swap was given */
	char *kernel;          /* kernel: a suite of the kernel kit, or a path; NULL: the kit's */
	char *kernel_command_line;   /* kernelCommandLine: added to ours; NULL: nothing */
	bool no_network;             /* networkingMode = none */
	bool localhost_forwarding;   /* localhostForwarding, default true */
	bool host_address_loopback;  /* hostAddressLoopback: the host's localhost, at the gateway */
	bool nested_virtualization;  /* nestedVirtualization, default false */
	uint64_t default_disk_bytes; /* defaultVhdSize: what a disk can grow to, default 1 TB */
	enum init_reclaim auto_memory_reclaim; /* autoMemoryReclaim, default gradual */

	char *ggml_dir;        /* [accel] ggml_dir: host folder with libggml; NULL: the kit's */
	bool reference_always; /* [accel] reference = always: list the CPU beside a GPU */
	uint64_t quota_bytes;  /* [accel] quota: of each machine on each device; 0: none */
	unsigned weight;       /* [accel] weight: of each machine's turns, 1 to 1000, default 100 */
	char *env[CONFIG_MAX_ENV]; /* [accel] env = NAME=VALUE, repeatable; given to executors */
	int n_env;
	bool system_call_filter; /* [sandbox] systemCallFilter, default true */
};

/* Defaults, then the file if there is one.  Unknown keys get one warning line each; a value that
 * cannot be used fails with file and line. */
int config_load(struct config *config, const char *path, struct pil_err *err) PIL_MUST_CHECK;
void config_finish(struct config *config);

/* The same, and then distros/@distro/machine.conf, whose settings override; for that machine.  Keys
 * that are not one machine's own are refused there. */
int config_load_machine(struct config *config, const struct state_dirs *dirs, const char *distro,
			struct pil_err *err) PIL_MUST_CHECK;
char *config_machine_path(const struct state_dirs *dirs, const char *distro); /* heap */

/* Could the file @path be the user's config; a machine.conf? */
int config_check(const char *path, struct pil_err *err) PIL_MUST_CHECK;
int config_check_machine(const char *path, struct pil_err *err) PIL_MUST_CHECK;

#endif
