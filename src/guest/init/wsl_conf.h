/* SPDX-License-Identifier: Apache-2.0
 *
 * wsl_conf.h -- /etc/wsl.conf of a machine. */
#ifndef PIL_WSL_CONF_H
#define PIL_WSL_CONF_H

#include <stdbool.h>

/* The keys that are honoured, and what is to be said of the others. */
struct wsl_conf {
	bool gpu_enabled;         /* [gpu] enabled, default true */
	bool gpu_append_lib_path; /* [gpu] appendLibPath */
	bool generate_hosts;      /* [network] generateHosts */
	bool generate_resolv;     /* [network] generateResolvConf */
	char hostname[65];        /* [network] hostname */
	char default_user[65];    /* [user] default; empty: by distro.json or root */
	char boot_command[1024];  /* [boot] command, run once by /bin/sh as root */
	char complaints[2048];    /* a printable line each: what was asked for in vain */
};

/* Defaults, then what @text says; what cannot be used is skipped and complained of. */
void wsl_conf_parse(const char *text, struct wsl_conf *out);

#endif
