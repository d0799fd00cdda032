/* SPDX-License-Identifier: Apache-2.0
 *
 * token.h -- the secret by which the broker knows a machine: 32 random bytes, in files as 64
 * lower-case hex digits and a newline. */
#ifndef PIL_TOKEN_H
#define PIL_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "state.h"
#include "wire.h"

enum { TOKEN_HEX = 2 * WIRE_TOKEN_BYTES };

void token_to_hex(const uint8_t *raw, char *hex);   /* @hex: TOKEN_HEX + 1 bytes */
bool token_from_hex(const char *hex, uint8_t *raw); /* a newline may follow */

/* Finds the machine whose token is @raw.  Compares in constant time.  @machine: WIRE_MAX_NAME
 * bytes.
 * *@quota_bytes is what runtime/machines/NAME/quota says, 0 without. */
bool token_find(const struct state_dirs *dirs, const uint8_t *raw, char *machine,
		uint64_t *quota_bytes);

#endif
