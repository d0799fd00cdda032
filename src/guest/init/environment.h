/* SPDX-License-Identifier: Apache-2.0
 *
 * environment.h -- the environment that a command starts in. */
#ifndef PIL_ENVIRONMENT_H
#define PIL_ENVIRONMENT_H

#include <stdbool.h>

struct guest;
struct user;

/* Replaces our environment by the one that a command of @user's gets.  @wanted: the client's
 * NAME=VALUE, NULL-terminated, which count most; ?NAME=VALUE gives way to the machine's own, and of
 * TERM, LANG and LC_* the value counts that the machine knows. */
void environment_set(const struct guest *guest, const struct user *user, const char *const *wanted);

/* Has the tree at @root a description of terminals of type @term, or the locale @name? */
bool environment_has_term(const char *root, const char *term);
bool environment_has_locale(const char *root, const char *name);

#endif
