/* SPDX-License-Identifier: Apache-2.0
 *
 * config_keys.h -- the table of all settings, and the text of their files.
 *
 * A setting stands in the user's config, or, where it is one of a single machine, in the machine's
 * own file (machine.conf), which overrides the config. */
#ifndef PIL_CONFIG_KEYS_H
#define PIL_CONFIG_KEYS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "base/err.h"

struct config;

enum config_kind {
	CONFIG_KEY_BOOL,
	CONFIG_KEY_BYTES,
	CONFIG_KEY_OWN, /* .set */
	CONFIG_KEY_TEXT,
	CONFIG_KEY_UNSIGNED,        /* up to .max */
	CONFIG_KEY_WITHOUT_MEANING, /* accepted, because people have it in their files */
};

struct config_key {
	const char *section, *name;
	enum config_kind kind;
	const char *normal; /* the value where nobody set one, for people */
	size_t field;       /* offset in struct config */
	unsigned max;
	bool (*set)(struct config *c, const char *value);
	void (*clear)(struct config *c); /* of a key that may be given several times */
	const char *takes;               /* what it takes; NULL: docs/config.md says it */
	bool of_machine;                 /* a machine may have its own */
};

extern const struct config_key config_keys[];
extern const int config_num_keys;

/* "memory" or "wsl2.memory", upper and lower case alike.  NULL with @err: no such key. */
const struct config_key *config_key_find(const char *name, struct pil_err *err);

/* Could a machine have @value for @key?  -EINVAL with what it takes. */
int config_key_check(const struct config_key *key, const char *value,
		     struct pil_err *err) PIL_MUST_CHECK;

/* The values of @key in the text of a file, one per line; heap.  NULL: it is not there. */
char *config_text_get(const char *text, const struct config_key *key);

/* The text with @key set to the @n values of @values (0: without the key); heap.  What else is in
 * the file stays as it is, comments too. */
char *config_text_set(const char *text, const struct config_key *key, const char *const *values,
		      int n);

/* What config_text_set() does, to the file @path, one at a time under the lock @lock_path.  @check
 * reads the changed text as whoever uses the file will; the file is replaced only if that works. */
typedef int config_check_fn(const char *path, struct pil_err *err);
int config_text_change(const char *path, const char *lock_path, const struct config_key *key,
		       const char *const *values, int n, config_check_fn *check,
		       struct pil_err *err) PIL_MUST_CHECK;

#endif
