/* SPDX-License-Identifier: Apache-2.0
 *
 * compiler.h -- the GNU attributes this code base uses, under names of its own. */
#ifndef PIL_COMPILER_H
#define PIL_COMPILER_H

#include <stddef.h>

#define PIL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define PIL_MUST_CHECK        __attribute__((warn_unused_result))
#define PIL_NORETURN          __attribute__((noreturn))
#define PIL_EXPORT            __attribute__((visibility("default")))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

#endif
