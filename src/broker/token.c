/* SPDX-License-Identifier: Apache-2.0
 *
 * token.c -- see token.h. */
#include "broker/token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/str.h"

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
