/* SPDX-License-Identifier: Apache-2.0
 *
 * token.h -- the secret by which the broker knows a machine: 32 random bytes, in files as 64
 * lower-case hex digits and a newline. */
#ifndef PIL_WIRE_TOKEN_H
#define PIL_WIRE_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/wire.h"

enum { TOKEN_HEX = 2 * WIRE_TOKEN_BYTES };

/* Into @hex (TOKEN_HEX + 1). */
void token_to_hex(const uint8_t *raw, char *hex);
/* The digits, and at most the end of a line; false: something else. */
bool token_from_hex(const char *hex, uint8_t *raw);

#endif
