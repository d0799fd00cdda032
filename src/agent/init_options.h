/* SPDX-License-Identifier: Apache-2.0
 *
 * init_options.h -- the options of pillion-init, as the supervisor writes and pillion-init reads
 * them: on its command line in a sandbox, on the life connection of a microVM. */
#ifndef PIL_INIT_OPTIONS_H
#define PIL_INIT_OPTIONS_H

#include <stdbool.h>

struct argv;

enum { INIT_MAX_MOUNTS = 8, INIT_MAX_ENV = 64 };

enum init_reclaim {
	INIT_RECLAIM_DISABLED,   /* freed memory stays with the machine */
	INIT_RECLAIM_GRADUAL,    /* it goes back to the host, and so do caches, slowly */
	INIT_RECLAIM_DROP_CACHE, /* all caches at once, when it has nothing to do */
	INIT_NUM_RECLAIMS
};
extern const char *const init_reclaim_str[]; /* as in the settings, NULL-terminated */

struct init_options { /* borrowed strings; NULL or -1: not given */
	/* both */
	const char *distro;                /* the machine's name */
	const char *user;                  /* of commands that name none: a name or a number */
	const char *resolv_conf;           /* its text */
	int idle_ms;                       /* without a command it ends after so long; -1: never */
	bool no_devices;                   /* programs are told of no plugin */
	const char *env[INIT_MAX_ENV + 1]; /* NAME=VALUE, for commands; NULL-terminated */
	/* a sandbox; numbers of descriptors */
	int listen_fd, life_fd, ready_fd;
	int entered_fd, go_fd; /* told and asked once it is in its namespaces */
	int forward_fd;        /* streams of forwarded connections */
	/* a microVM */
	const char *net;                         /* ADDRESS/PREFIX,GATEWAY,MTU; NULL: no network */
	const char *token;                       /* what programs show the broker */
	const char *mounts[INIT_MAX_MOUNTS + 1]; /* TAG:PATH[:ro], NULL-terminated */
	int reclaim;                             /* enum init_reclaim */
	bool forward;                            /* listen for forwarded connections */
	bool swap;                               /* the second disk is for that */
};

void init_options_begin(struct init_options *o); /* nothing is given */

/* Adds what is given as arguments. */
void init_options_add(struct argv *a, const struct init_options *o);

/* Reads them back; @argv[0] is the program.  Strings stay in @argv.  False: unknown, malformed, too
 * many, or no --distro. */
bool init_options_parse(int argc, char **argv, struct init_options *o);

#endif
