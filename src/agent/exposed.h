/* SPDX-License-Identifier: Apache-2.0
 *
 * exposed.h -- what programs in a machine find of pillion, and where.  The host puts it there
 * (src/machine, the initramfs), pillion-init tells programs of it, plugins look for it. */
#ifndef PIL_EXPOSED_H
#define PIL_EXPOSED_H

/* Our own folder, read-only; and one beside it, as WSL has it, with a link to our libraries. */
#define EXPOSED_DIR     "/usr/lib/pillion"
#define EXPOSED_BIN     EXPOSED_DIR "/bin"
#define EXPOSED_LIB     EXPOSED_DIR "/lib"
#define EXPOSED_INIT    EXPOSED_BIN "/pillion-init"
#define EXPOSED_WSL     "/usr/lib/wsl"
#define EXPOSED_WSL_LIB EXPOSED_WSL "/lib"

/* The PATH of the first process, and what is added for people. */
#define EXPOSED_PLAIN_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define EXPOSED_MORE_PATH  EXPOSED_BIN ":" EXPOSED_WSL_LIB

/* How a program reaches the host: in a sandbox by a socket in the host's folder, in a microVM,
 * which the mark tells, by vsock; and what it shows there. */
#define EXPOSED_RUN     "/run/pillion"
#define EXPOSED_HOST    EXPOSED_RUN "/host"
#define EXPOSED_GATE    EXPOSED_HOST "/broker.sock"
#define EXPOSED_TOKEN   EXPOSED_RUN "/token"
#define EXPOSED_MICROVM EXPOSED_RUN "/microvm"
#define EXPOSED_WHOLE   EXPOSED_RUN "/whole" /* see cover.c */

#define EXPOSED_HOST_FOLDERS "/mnt/host" /* folders in there are shares, and nothing else is */

struct exposed {
	const char *api;      /* "ggml" */
	const char *plugin;   /* "libggml-pillion.so" */
	const char *place;    /* the whole path of it in a machine */
	const char *variable; /* "GGML_BACKEND_PATH", which is set to .place */
	const char *setting;  /* VARIABLE=PLACE */
};

enum {
#define EXPOSED(api, plugin, variable) EXPOSED_##api,
#include "agent/exposed.def"
#undef EXPOSED
	EXPOSED_NUM
};
extern const struct exposed exposed[EXPOSED_NUM];

#endif
