/* SPDX-License-Identifier: Apache-2.0
 *
 * setup.h -- what a machine needs before its first command. */
#ifndef PIL_SETUP_H
#define PIL_SETUP_H

#include <stdbool.h>

/* The keys of /etc/wsl.conf that are honoured. */
struct wsl_conf {
	bool gpu_enabled;         /* [gpu] enabled, default true */
	bool gpu_append_lib_path; /* [gpu] appendLibPath */
	bool generate_hosts;      /* [network] generateHosts */
	bool generate_resolv;     /* [network] generateResolvConf */
	char hostname[65];        /* [network] hostname */
	char default_user[65];    /* [user] default; empty: by distro.json or root */
	char boot_command[1024];  /* [boot] command, run once by /bin/sh as root */
};

/* Defaults, then what @text says; what cannot be used is skipped. */
void wsl_conf_parse(const char *text, struct wsl_conf *out);

/* Reads /etc/wsl.conf, writes hosts, resolv.conf (@nameservers: as in resolv.conf, may be NULL),
 * ld.so settings and what names the plugin to programs, links Ollama's folder, brings lo up, runs
 * the boot command. */
void setup_machine(struct wsl_conf *conf, const char *hostname, const char *resolv_conf);

/* What /etc/environment is to say: @old, and once the line that names the plugin (if @wanted).  A
 * variable of that name that says something else is left alone.  The caller frees it. */
char *setup_environment(const char *old, bool wanted);

/* Ollama looks for back ends in a folder of its own: puts a link to the plugin there wherever
 * Ollama is installed.  Cheap; called before each command, because Ollama may be installed at any
 * time. */
void setup_ollama(const struct wsl_conf *conf);

#endif
