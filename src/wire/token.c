/* SPDX-License-Identifier: Apache-2.0
 *
 * token.c -- see token.h. */
#include "wire/token.h"

#include <stdio.h>

void token_to_hex(const uint8_t *raw, char *hex)
{
	for (int i = 0; i < WIRE_TOKEN_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", raw[i]);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool token_from_hex(const char *hex, uint8_t *raw)
{
	for (int i = 0; i < WIRE_TOKEN_BYTES; i++) {
		int hi = hex_digit(hex[2 * i]), lo = hi < 0 ? -1 : hex_digit(hex[2 * i + 1]);

		if (lo < 0)
			return false;
		raw[i] = (uint8_t)(hi << 4 | lo);
	}
	return hex[TOKEN_HEX] == '\0' || (hex[TOKEN_HEX] == '\n' && hex[TOKEN_HEX + 1] == '\0');
}
