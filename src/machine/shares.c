/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: a share that is written to, or is marked so, is a bind mount in a sandbox:
 * a socket in it takes connections and a FIFO takes bytes.  The others go through FUSE (bindfs.c).
 * So the folders are refused in which there always are sockets of the user's session
 * (agents of keys, the session bus, container engines), and others are looked at.
 *
 * Some folders may be seen but never written: what pillion runs outside lies in them. */
#include "machine/shares.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "config/config.h"
#include "config/state.h"

enum { MAX_LOOKED_AT = 2000, MAX_DEPTH = 2, MAX_ALL = 100000, ALL_DEPTH = 16 };

/* Is @path @folder, or below it?  Both are real paths. */
static bool lies_in(const char *path, const char *folder)
{
	size_t len = strlen(folder);

	return !strcmp(folder, "/") ||
	       (!strncmp(path, folder, len) && (path[len] == '/' || path[len] == '\0'));
}

static char *program_folder(void)
{
	_auto_free char *self = path_of_self(); /* BUILD/src/machine, or PREFIX/libexec/pillion */

	return self ? str_printf("%s/..", self) : NULL;
}

/* Heap; NULL is fine, and is what is not there. */
static char *resolve(const char *path)
{
	return path ? realpath(path, NULL) : NULL;
}

/* What is wrong with @share, a real path; NULL: nothing. */
static const char *fault(const char *share, bool writable, const struct config *config,
			 const struct state_dirs *dirs)
{
	const struct passwd *pw = getpwuid(getuid());
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	_auto_free char *program = program_folder();
	const struct {
		const char *path, *why;
		bool writable_only, below; /* only if writable; what lies in it is meant, too */
	} kept[] = {
		{getenv("HOME"), "your home folder is in it", false, false},
		{pw ? pw->pw_dir : NULL, "your home folder is in it", false, false},
		{runtime, "the sockets of your session are in it", false, false},
		{"/run", "the sockets of the host's services are in it", false, false},
		{"/tmp", "sockets of your programs are in it", false, false},
		{dirs->runtime, "pillion's sockets are in it", false, true},
		{dirs->config, "pillion's settings are in it", true, true},
		{dirs->data, "pillion's machines are in it", true, true},
		{dirs->cache, "what pillion installs from is in it", true, true},
		{program, "what pillion runs is in it", true, true},
		{PILLION_GUESTDIR, "what pillion runs is in it", true, true},
		{config->ggml_dir, "ggml_dir, what executors run, is in it", true, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
		_auto_free char *real = resolve(kept[i].path);

		if (!real || (kept[i].writable_only && !writable))
			continue;
		if (lies_in(real, share) || (kept[i].below && lies_in(share, real)))
			return kept[i].why;
	}
	return NULL;
}

/* Programs that write to one share could put a link in the place of another that lies in it, and
 * so choose which folder of the host that is at the next start. */
static bool in_writable_share(const struct config *config, const struct config_share *share,
			      const char *real)
{
	for (int i = 0; i < config->n_shares; i++) {
		const struct config_share *other = &config->shares[i];
		_auto_free char *outer = realpath(other->path, NULL);

		if (other == share || !other->writable || !outer)
			continue;
		if (lies_in(share->path, other->path) || lies_in(share->path, outer) ||
		    lies_in(real, outer))
			return true;
	}
	return false;
}

int shares_check(const struct config *config, int index, const struct state_dirs *dirs,
		 struct pil_err *err)
{
	const struct config_share *share = &config->shares[index];
	_auto_free char *real = realpath(share->path, NULL);
	const char *why;

	if (!real)
		return pil_err_set(err, errno, "folder '%s' of the host", share->path);
	why = fault(real, share->writable, config, dirs);
	if (!why && in_writable_share(config, share, real))
		why = "it lies in another share, that machines write to";
	if (!why)
		return 0;
	if (share->unsafe) {
		log_warn("share '%s': %s; programs in the machine may act for you outside",
			 share->path, why);
		return 0;
	}
	pil_err_hint(err, "share a folder below it; or, if programs in machines may do all that "
			  "you may do, add ':unsafe'");
	return pil_err_say(err, EPERM, "share '%s'%s is refused: %s", share->path,
			   share->writable ? ", to be written to," : "", why);
}

struct look {
	int left; /* entries */
	int max_depth;
	bool all_seen;
	int found;
	char first[512];
};

/* DT_x, also where the file system does not say it. */
static int type_of(DIR *dir, const struct dirent *e)
{
	struct stat st;

	if (e->d_type != DT_UNKNOWN)
		return e->d_type;
	return fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) ? DT_UNKNOWN
									: (int)IFTODT(st.st_mode);
}

static void look_into(struct look *look, const char *folder, int depth)
{
	DIR *dir = opendir(folder);

	for (struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
		_auto_free char *path = str_printf("%s/%s", folder, e->d_name);
		int type = type_of(dir, e);

		if (look->left-- <= 0) {
			look->all_seen = false;
			break;
		}
		if (type == DT_SOCK || type == DT_FIFO) {
			if (!look->found++)
				snprintf(look->first, sizeof(look->first), "%s", path);
		} else if (type == DT_DIR && strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) {
			if (depth < look->max_depth)
				look_into(look, path, depth + 1);
			else
				look->all_seen = false;
		}
	}
	if (dir)
		closedir(dir);
}

int shares_refuse_sockets(const char *folder, struct pil_err *err)
{
	struct look look = {.left = MAX_ALL, .max_depth = ALL_DEPTH, .all_seen = true};
	char safe[sizeof(look.first)];

	look_into(&look, folder, 0);
	if (!look.all_seen)
		log_warn("folder '%s' holds too much: it may have sockets, which programs in this "
			 "sandbox can use",
			 folder);
	if (!look.found)
		return 0;
	str_escape(safe, sizeof(safe), look.first);
	pil_err_hint(err, "move it elsewhere, or run the machine as a microVM");
	return pil_err_say(err, EPERM,
			   "folder '%s': '%.200s' is a socket or a FIFO, which programs in a "
			   "sandbox could use",
			   folder, safe);
}

void shares_warn_of_sockets(const char *folder)
{
	struct look look = {.left = MAX_LOOKED_AT, .max_depth = MAX_DEPTH};
	char safe[sizeof(look.first)];

	look_into(&look, folder, 0);
	if (look.found)
		log_warn("share '%s': programs in this sandbox can use its sockets and FIFOs (%d, "
			 "'%s' for one), read-only or not; in a microVM they cannot",
			 folder, look.found, str_escape(safe, sizeof(safe), look.first));
}
