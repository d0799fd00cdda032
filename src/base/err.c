/* SPDX-License-Identifier: Apache-2.0
 *
 * Fills struct pil_err.  A text that is too long is cut: a report must never fail itself. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int pil_err_set(struct pil_err *err, int code, const char *fmt, ...)
{
	va_list ap;
	int len;

	if (!err)
		return -code;
	err->code = code;
	va_start(ap, fmt);
	len = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	if (len >= 0 && (size_t)len < sizeof(err->msg))
		snprintf(err->msg + len, sizeof(err->msg) - (size_t)len, ": %s", strerror(code));
	if (code == ENOSPC && !err->hint[0])
		pil_err_hint(err, "df -h shows which disk is full");
	return -code;
}

int pil_err_say(struct pil_err *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return -code;
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	return -code;
}

int pil_err_prefix(struct pil_err *err, const char *fmt, ...)
{
	char old[sizeof(err->msg)];
	va_list ap;
	int len;

	if (!err)
		return -EINVAL;
	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	len = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	if (len >= 0 && (size_t)len < sizeof(err->msg))
		snprintf(err->msg + len, sizeof(err->msg) - (size_t)len, ": %s", old);
	return -err->code;
}

void pil_err_hint(struct pil_err *err, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return;
	va_start(ap, fmt);
	vsnprintf(err->hint, sizeof(err->hint), fmt, ap);
	va_end(ap);
}
