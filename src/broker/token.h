/* SPDX-License-Identifier: Apache-2.0
 *
 * token.h -- the secret by which the broker knows a machine: 32 random bytes, in files as 64
 * lower-case hex digits and a newline. */
#ifndef PIL_TOKEN_H
#define PIL_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "config/state.h"
#include "wire/wire.h"

enum { TOKEN_HEX = 2 * WIRE_TOKEN_BYTES };

void token_to_hex(const uint8_t *raw, char *hex);   /* @hex: TOKEN_HEX + 1 bytes */
bool token_from_hex(const char *hex, uint8_t *raw); /* a newline may follow */

/* Is @raw the token of @machine?  Compares in constant time. */
bool token_check(const struct state_dirs *dirs, const char *machine, const uint8_t *raw);

#endif
