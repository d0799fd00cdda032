/* SPDX-License-Identifier: Apache-2.0
 *
 * setup.h -- what a machine needs before its first command. */
#ifndef PIL_SETUP_H
#define PIL_SETUP_H

#include <stdbool.h>
#include <sys/types.h>

struct init_options;
struct wsl_conf;

/* Makes our own environment, reads /etc/wsl.conf, writes hosts, resolv.conf, ld.so settings and
 * what names the plugins to programs, links Ollama's folder, brings lo up.  Needs no network. */
void setup_machine(struct wsl_conf *conf, const struct init_options *options);

/* Sets the variables that name the plugins in the caller's environment, or (not @wanted) unsets
 * them. */
void setup_variables(bool wanted);

/* Makes the user's folder below /run/user, if it is not there. */
void setup_user(uid_t uid, gid_t gid);

/* Starts the boot command, if there is one. */
void setup_start_boot_command(const struct wsl_conf *conf);

/* What /etc/environment is to say: @old, and once the line that names each plugin (if @wanted).  A
 * variable of that name that says something else is left alone.  The caller frees it. */
char *setup_environment(const char *old, bool wanted);

/* Ollama looks for back ends in a folder of its own: puts a link to the plugin there wherever
 * Ollama is installed.  Cheap; called before each command, because Ollama may be installed at any
 * time. */
void setup_ollama(const struct wsl_conf *conf);

#endif
