/* SPDX-License-Identifier: Apache-2.0
 *
 * Strings: printing to the heap, escaping what a peer has sent, and reading numbers and sizes that
 * people write. */
#include "base/str.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

char *str_printf(const char *fmt, ...)
{
	char *out = NULL;
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vasprintf(&out, fmt, ap);
	va_end(ap);
	if (len < 0)
		abort();
	return out;
}

const char *str_escape(char *out, size_t out_size, const char *in)
{
	size_t pos = 0;

	for (; *in && pos + 5 < out_size; in++) {
		unsigned char c = (unsigned char)*in;

		if (isprint(c) && c < 0x7f)
			out[pos++] = (char)c;
		else
			pos += (size_t)snprintf(out + pos, out_size - pos, "\\x%02x", c);
	}
	if (out_size)
		out[pos] = '\0';
	return out;
}

/* How many bytes of @in are a control character; those of 8 bits are two in UTF-8. */
static unsigned control_bytes(const unsigned char *in)
{
	if (in[0] == 0xc2 && in[1] >= 0x80 && in[1] < 0xa0)
		return 2;
	return in[0] < ' ' || in[0] == 0x7f;
}

const char *str_escape_controls(char *out, size_t out_size, const char *in)
{
	size_t pos = 0;

	while (*in && pos + 9 < out_size) {
		unsigned n = control_bytes((const unsigned char *)in);

		if (!n)
			out[pos++] = *in++;
		for (; n; n--)
			pos += (size_t)sprintf(out + pos, "\\x%02x", (unsigned char)*in++);
	}
	if (out_size)
		out[pos] = '\0';
	return out;
}

void str_blank_controls(char *text)
{
	while (*text) {
		unsigned n = control_bytes((const unsigned char *)text);

		memset(text, '?', n);
		text += n ? n : 1;
	}
}

bool str_to_u64(const char *text, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		unsigned digit = (unsigned)(*text - '0');

		if (digit > 9 || digit > max || v > (max - digit) / 10)
			return false;
		v = v * 10 + digit;
	}
	*out = v;
	return true;
}

bool str_to_bytes(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	char number[24];
	size_t digits = strspn(text, "0123456789");
	const char *unit, *rest = text + digits;
	unsigned shift = 0;
	uint64_t v;

	if (digits == 0 || digits >= sizeof(number))
		return false;
	memcpy(number, text, digits);
	number[digits] = '\0';
	if (*rest && (unit = strchr(units, toupper((unsigned char)*rest)))) {
		shift = 10 * (unsigned)(unit - units + 1);
		rest++;
		if (!strcasecmp(rest, "b") || !strcasecmp(rest, "ib"))
			rest = "";
	} else if (!strcasecmp(rest, "b")) {
		rest = "";
	}
	if (*rest || !str_to_u64(number, UINT64_MAX >> shift, &v))
		return false;
	*out = v << shift;
	return true;
}

const char *str_bytes(char *out, size_t out_size, uint64_t bytes)
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double v = (double)bytes;
	size_t i = 0;

	while (v >= 1024 && i + 1 < ARRAY_SIZE(unit)) {
		v /= 1024;
		i++;
	}
	snprintf(out, out_size, i ? "%.1f %s" : "%.0f %s", v, unit[i]);
	return out;
}

bool str_is_name(const char *text)
{
	size_t len = strlen(text);

	if (len == 0 || len > STR_MAX_NAME || !isalnum((unsigned char)text[0]))
		return false;
	return strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
	       len;
}
