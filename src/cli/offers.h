/* SPDX-License-Identifier: Apache-2.0
 *
 * offers.h -- what can be installed, for people and for programs: pillion's own recipes, and the
 * list of distributions. */
#ifndef PIL_OFFERS_H
#define PIL_OFFERS_H

#include <stdbool.h>
#include <stdio.h>

struct catalog;

/* wsl's text, then NAME and FRIENDLY NAME. */
void offers_print(FILE *out, const struct catalog *catalog);
void offers_print_json(FILE *out, const struct catalog *catalog);

/* Is it a recipe's name as it is written there?  Then no list is needed. */
bool offers_is_recipe(const char *name);

#endif
