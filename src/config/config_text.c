/* SPDX-License-Identifier: Apache-2.0
 *
 * config_text.c -- finds and changes settings in the text of an ini file.
 *
 * The text is worked on line by line, so that comments and what is not known stay where they are.
 * A line continues the one before it where it begins with a blank, as in inih's own reading. */
#include "config/config_keys.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "config/state.h"

enum { MAX_FILE_BYTES = 1 << 20, LOCK_MS = 5000 };

const struct config_key *config_key_find(const char *name, struct pil_err *err)
{
	const char *dot = strchr(name, '.');
	size_t len = dot ? (size_t)(dot - name) : 0;

	for (int i = config_num_keys; i-- > 0;) { /* [wsl2] before [experimental] */
		const struct config_key *key = &config_keys[i];

		if (dot && (strlen(key->section) != len || strncasecmp(name, key->section, len)))
			continue;
		if (!strcasecmp(dot ? dot + 1 : name, key->name))
			return key;
	}
	pil_err_hint(err,
		     "pillion --manage NAME --get lists them; man pillion-config explains them");
	pil_err_say(err, ENOENT, "there is no setting '%.64s'", name);
	return NULL;
}

/* ---- lines ---- */

struct line {
	const char *begin, *end; /* with its end of line */
	const char *value;       /* of a setting, up to value_end; else NULL */
	const char *value_end;   /* without blanks */
	bool is_section;         /* [name] ... */
	bool continues;          /* belongs to the setting before it */
};

struct lines {
	const char *at;
	char section[64]; /* that the last line is in */
	char name[64];    /* of the last setting */
};

static const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && isspace((unsigned char)*p))
		p++;
	return p;
}

static const char *trim(const char *begin, const char *end)
{
	while (end > begin && isspace((unsigned char)end[-1]))
		end--;
	return end;
}

static void keep(char *to, size_t size, const char *begin, const char *end)
{
	snprintf(to, size, "%.*s", (int)(end - begin), begin);
}

static void read_line(struct lines *in, struct line *line)
{
	const char *p = skip_blanks(line->begin, line->end);
	const char *close, *equals;

	if (p == line->end || *p == ';' || *p == '#')
		return;
	if (p > line->begin && in->name[0]) {
		line->continues = true;
		return;
	}
	in->name[0] = '\0';
	if (*p == '[') {
		close = memchr(p, ']', (size_t)(line->end - p));
		line->is_section = close != NULL;
		if (close)
			keep(in->section, sizeof(in->section), p + 1, close);
		return;
	}
	equals = memchr(p, '=', (size_t)(line->end - p));
	if (!equals)
		return;
	keep(in->name, sizeof(in->name), p, trim(p, equals));
	line->value = skip_blanks(equals + 1, line->end);
	line->value_end = trim(line->value, line->end);
}

static bool next_line(struct lines *in, struct line *line)
{
	const char *newline;

	if (!*in->at)
		return false;
	newline = strchr(in->at, '\n');
	*line = (struct line){.begin = in->at};
	line->end = newline ? newline + 1 : in->at + strlen(in->at);
	in->at = line->end;
	read_line(in, line);
	return true;
}

static bool in_section(const struct lines *in, const struct config_key *key)
{
	return !strcasecmp(in->section, key->section) ||
	       (!strcasecmp(in->section, "pillion") && !strcmp(key->section, "wsl2"));
}

static bool sets(const struct lines *in, const struct line *line, const struct config_key *key)
{
	return (line->value || line->continues) && in_section(in, key) &&
	       !strcasecmp(in->name, key->name);
}

/* ---- get and set ---- */

char *config_text_get(const char *text, const struct config_key *key)
{
	struct lines in = {.at = text};
	struct line line;
	char *found = NULL;

	while (next_line(&in, &line)) {
		_auto_free char *before = NULL;

		if (!sets(&in, &line, key) || !line.value)
			continue;
		before = found;
		found = key->clear && before
				? str_printf("%s\n%.*s", before, (int)(line.value_end - line.value),
					     line.value)
				: str_printf("%.*s", (int)(line.value_end - line.value),
					     line.value);
	}
	return found;
}

static void put_values(FILE *out, const struct config_key *key, const char *const *values, int n)
{
	for (int i = 0; i < n; i++)
		fprintf(out, "%s = %s\n", key->name, values[i]);
}

/* The values take the place of the first old one; else they follow the head of the section; else
 * the section comes to the end. */
char *config_text_set(const char *text, const struct config_key *key, const char *const *values,
		      int n)
{
	struct lines in = {.at = text ? text : ""};
	_auto_free char *old = config_text_get(in.at, key);
	bool there = n == 0, ends_line = true;
	char *changed = NULL;
	struct line line;
	size_t size;
	FILE *out = open_memstream(&changed, &size);

	if (!out)
		return NULL;
	while (next_line(&in, &line)) {
		bool is_old = sets(&in, &line, key);

		if (!is_old) {
			fwrite(line.begin, 1, (size_t)(line.end - line.begin), out);
			ends_line = line.end[-1] == '\n';
		}
		if (there || !(is_old || (!old && line.is_section && in_section(&in, key))))
			continue;
		if (!ends_line)
			fputc('\n', out);
		ends_line = there = true;
		put_values(out, key, values, n);
	}
	if (!there) {
		fprintf(out, "%s[%s]\n", ends_line ? "" : "\n", key->section);
		put_values(out, key, values, n);
	}
	fclose(out);
	return changed;
}

static int replace(const char *path, const char *text, config_check_fn *check, struct pil_err *err)
{
	_auto_free char *trial = str_printf("%s.trial", path);
	int ret = pil_write_file(trial, 0600, text, strlen(text));

	if (ret)
		return pil_err_set(err, -ret, "write '%s'", trial);
	ret = check(trial, err);
	if (!ret && rename(trial, path))
		ret = pil_err_set(err, errno, "replace '%s'", path);
	if (ret)
		unlink(trial);
	return ret;
}

int config_text_change(const char *path, const char *lock_path, const struct config_key *key,
		       const char *const *values, int n, config_check_fn *check,
		       struct pil_err *err)
{
	_auto_fd int lock_fd = state_lock(lock_path, LOCK_MS, err);
	_auto_free char *before = NULL;
	_auto_free char *after = NULL;

	if (lock_fd < 0)
		return lock_fd;
	if (path_exists(path) && pil_read_file(path, MAX_FILE_BYTES, &before) < 0)
		return pil_err_say(err, EIO, "read '%s'", path);
	after = config_text_set(before, key, values, n);
	return after ? replace(path, after, check, err)
		     : pil_err_set(err, ENOMEM, "change '%s'", path);
}
