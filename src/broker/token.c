/* SPDX-License-Identifier: Apache-2.0
 *
 * token.c -- see token.h. */
#include "broker/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/str.h"

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

static bool read_token(const struct state_dirs *dirs, const char *machine, uint8_t *raw)
{
	_auto_free char *path = str_printf("%s/machines/%s/token", dirs->runtime, machine);
	_auto_free char *text = NULL;

	return pil_read_file(path, 128, &text) >= TOKEN_HEX && token_from_hex(text, raw);
}

static bool same(const uint8_t *a, const uint8_t *b)
{
	uint8_t difference = 0;

	for (int i = 0; i < WIRE_TOKEN_BYTES; i++)
		difference |= a[i] ^ b[i];
	return difference == 0;
}

bool token_check(const struct state_dirs *dirs, const char *machine, const uint8_t *raw)
{
	uint8_t its[WIRE_TOKEN_BYTES];

	return str_is_name(machine) && read_token(dirs, machine, its) && same(raw, its);
}
