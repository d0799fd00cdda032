/* SPDX-License-Identifier: Apache-2.0
 *
 * setup.h -- what a machine needs before its first command. */
#ifndef PIL_SETUP_H
#define PIL_SETUP_H

#include <stdbool.h>

struct wsl_conf;

/* Reads /etc/wsl.conf, writes hosts, resolv.conf (@resolv_conf: its text, may be NULL),
 * ld.so settings and what names the plugin to programs, links Ollama's folder, brings lo up.
 * Needs no network. */
void setup_machine(struct wsl_conf *conf, const char *hostname, const char *resolv_conf);

/* Starts the boot command, if there is one. */
void setup_start_boot_command(const struct wsl_conf *conf);

/* What /etc/environment is to say: @old, and once the line that names the plugin (if @wanted).  A
 * variable of that name that says something else is left alone.  The caller frees it. */
char *setup_environment(const char *old, bool wanted);

/* Ollama looks for back ends in a folder of its own: puts a link to the plugin there wherever
 * Ollama is installed.  Cheap; called before each command, because Ollama may be installed at any
 * time. */
void setup_ollama(const struct wsl_conf *conf);

#endif
