/* SPDX-License-Identifier: Apache-2.0
 *
 * Walks through an image: index, manifest, configuration, layers.  Files of the image's folder are
 * opened beneath it whatever its links say (openat2), read once to compare digest and size, and
 * then used through the same descriptor; nobody else can write to them meanwhile. */
#include "archive/layers.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "base/fd.h"
#include "base/str.h"

enum { READ_BYTES = 64 << 10, MAX_NESTING = 4 };

#if defined(__x86_64__)
#define ARCH "amd64"
#elif defined(__aarch64__)
#define ARCH "arm64"
#endif

static int open_beneath(int folder_fd, const char *path, struct pil_err *err)
{
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
			       .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	int fd = (int)syscall(SYS_openat2, folder_fd, path, &how, sizeof(how));
	struct stat st;
	char safe[256];

	if (fd < 0)
		return pil_err_set(err, errno, "the image: open '%s'",
				   str_escape(safe, sizeof(safe), path));
	if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
		close(fd);
		return pil_err_say(err, EBADMSG, "the image: '%s' is no file",
				   str_escape(safe, sizeof(safe), path));
	}
	return fd;
}

static int hash(int fd, char *hex, uint64_t *bytes)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	_auto_free char *buf = malloc(READ_BYTES);
	unsigned n_digest = 0;
	ssize_t n = -1;

	*bytes = 0;
	if (ctx && buf && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1)
		while ((n = read(fd, buf, READ_BYTES)) > 0 || (n < 0 && errno == EINTR)) {
			if (n < 0)
				continue;
			*bytes += (uint64_t)n;
			if (EVP_DigestUpdate(ctx, buf, (size_t)n) != 1)
				break;
		}
	if (n == 0 && EVP_DigestFinal_ex(ctx, digest, &n_digest) != 1)
		n = -1;
	EVP_MD_CTX_free(ctx);
	for (unsigned i = 0; i < n_digest; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	return n == 0 && n_digest == OCI_HEX / 2 && lseek(fd, 0, SEEK_SET) == 0 ? 0 : -EIO;
}

/* Opens a part of the image, which has been compared with what is known of it. */
static int open_blob(int image_fd, const struct oci_blob *blob, struct pil_err *err)
{
	_auto_fd int fd = open_beneath(image_fd, blob->path, err);
	char hex[OCI_HEX + 1] = "";
	uint64_t bytes;

	if (fd < 0 || !blob->hex[0])
		return pil_take_fd(&fd);
	if (hash(fd, hex, &bytes))
		return pil_err_say(err, EIO, "the image: read '%s'", blob->path);
	if (strcmp(hex, blob->hex) != 0 || bytes != blob->bytes)
		return pil_err_say(err, EBADMSG,
				   "the image: '%s' is not what its digest says: it has %llu bytes "
				   "and SHA-256 %s",
				   blob->path, (unsigned long long)bytes, hex);
	return pil_take_fd(&fd);
}

static ssize_t read_text(int fd, char **out)
{
	struct stat st;
	char *text;
	int ret;

	if (fstat(fd, &st))
		return -errno;
	if (st.st_size > OCI_MAX_TEXT)
		return -EFBIG;
	text = calloc(1, (size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	ret = pil_read_all(fd, text, (size_t)st.st_size);
	if (ret) {
		free(text);
		return ret;
	}
	*out = text;
	return (ssize_t)st.st_size;
}

static ssize_t read_blob(int image_fd, const struct oci_blob *blob, char **out, struct pil_err *err)
{
	_auto_fd int fd = open_blob(image_fd, blob, err);
	ssize_t len = fd < 0 ? fd : read_text(fd, out);

	return fd >= 0 && len < 0 ? pil_err_set(err, (int)-len, "the image: read '%s'", blob->path)
				  : len;
}

static int find_image(int image_fd, const char *tag, struct oci_image *image, struct pil_err *err)
{
	struct oci_blob blob = {.path = "index.json", .bytes = UINT64_MAX};
	bool nested = true;

	if (faccessat(image_fd, "index.json", F_OK, 0) && errno == ENOENT) {
		_auto_free char *text = NULL;
		ssize_t len;

		snprintf(blob.path, sizeof(blob.path), "manifest.json");
		len = read_blob(image_fd, &blob, &text, err);
		return len < 0 ? (int)len : oci_parse_docker(text, (size_t)len, tag, image, err);
	}
	for (int i = 0; nested; i++, tag = NULL) {
		_auto_free char *text = NULL;
		ssize_t len = read_blob(image_fd, &blob, &text, err);
		int ret;

		if (len < 0)
			return (int)len;
		if (i == MAX_NESTING)
			return pil_err_say(err, ELOOP, "the image: too many indexes in each other");
		ret = oci_parse_index(text, (size_t)len, tag, ARCH, &blob, &nested, err);
		if (ret)
			return ret;
	}
	{
		_auto_free char *text = NULL;
		ssize_t len = read_blob(image_fd, &blob, &text, err);

		return len < 0 ? (int)len : oci_parse_manifest(text, (size_t)len, image, err);
	}
}

static int apply_layer(int image_fd, const struct oci_blob *layer, struct extract_limits *limits,
		       struct pil_err *err)
{
	_auto_fd int fd = open_blob(image_fd, layer, err);
	int ret = fd < 0 ? fd : extract_run(fd, EXTRACT_WHITEOUTS, limits, err);

	if (!ret && lseek(fd, 0, SEEK_SET) < 0)
		ret = pil_err_set(err, errno, "the image: read '%s'", layer->path);
	return ret ? ret : extract_run(fd, EXTRACT_FILES, limits, err);
}

int layers_apply(int image_fd, const char *tag, struct extract_limits *limits,
		 struct oci_config *config, struct pil_err *err)
{
	struct oci_image *image = calloc(1, sizeof(*image));
	_auto_free char *text = NULL;
	ssize_t len;
	int ret;

	if (!image)
		return pil_err_set(err, ENOMEM, "read the image");
	ret = find_image(image_fd, tag, image, err);
	if (!ret) {
		len = read_blob(image_fd, &image->config, &text, err);
		ret = len < 0 ? (int)len : oci_parse_config(text, (size_t)len, config, err);
	}
	for (int i = 0; !ret && i < image->n_layers; i++) {
		ret = apply_layer(image_fd, &image->layers[i], limits, err);
		if (ret)
			pil_err_prefix(err, "layer %d of %d", i + 1, image->n_layers);
	}
	free(image);
	return ret;
}

/* ---- what the host should know ---- */

/* The id of user @name by the tree's own list; false: there is none. */
static bool find_user(const char *name, unsigned *uid)
{
	_auto_fd int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct passwd *pw;
	struct stat st;
	bool found = false;
	FILE *in;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > OCI_MAX_TEXT)
		return false;
	in = fdopen(fd, "r");
	if (!in)
		return false;
	pil_take_fd(&fd);
	while (!found && (pw = fgetpwent(in))) {
		found = !strcmp(pw->pw_name, name);
		*uid = pw->pw_uid;
	}
	fclose(in);
	return found && *uid < 65534;
}

void layers_print(FILE *out, const struct oci_config *config)
{
	json_auto_t *env = json_array();
	json_auto_t *root = NULL;
	char name[sizeof(config->user)];
	uint64_t number = 0;
	unsigned uid = 0;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(config->user, ":"), config->user);
	if (name[0] && str_to_u64(name, 65533, &number))
		uid = (unsigned)number;
	else if (name[0] && !find_user(name, &uid))
		uid = 0;
	for (int i = 0; i < config->n_env; i++)
		json_array_append_new(env, json_string(config->env[i]));
	root = json_pack("{s:i, s:O, s:s}", "uid", (int)uid, "env", env, "workdir",
			 config->workdir);
	json_dumpf(root, out, JSON_COMPACT);
}
