/* SPDX-License-Identifier: Apache-2.0
 *
 * token.h -- whether a token is a machine's (wire/token.h). */
#ifndef PIL_TOKEN_H
#define PIL_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "config/state.h"
#include "wire/token.h"

/* Is @raw the token of @machine?  Compares in constant time. */
bool token_check(const struct state_dirs *dirs, const char *machine, const uint8_t *raw);

#endif
