/* SPDX-License-Identifier: Apache-2.0
 *
 * pillion-archive -- started by tree/archive.c, as uid 0 of the user namespace that owns the trees,
 * in a pen where the tree, and what it is made of, are all there is:
 *
 *   unpack TREE MAX_BYTES          the archive on standard input becomes files in TREE
 *   layers TREE MAX_BYTES IMAGE [TAG]   the container image in folder IMAGE does
 *   pack TREE FILTER               TREE becomes an archive on standard output
 *
 * Before a byte of what somebody else wrote is read, TREE becomes the root folder for good. */
#include <errno.h>
#include <fcntl.h>
#include <iconv.h>
#include <linux/capability.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "archive/extract.h"
#include "archive/layers.h"
#include "archive/pack.h"
#include "base/fd.h"
#include "base/report.h"
#include "base/str.h"

enum { MAX_MEMORY_BYTES = 1500 << 20, MAX_FILES = 20 << 20 };

/* From now on nobody in here can leave the root folder. */
static int give_up_chroot(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[2];
	const uint32_t bit = 1u << CAP_SYS_CHROOT;

	if (syscall(SYS_capget, &head, caps))
		return -errno;
	caps[0].effective &= ~bit;
	caps[0].permitted &= ~bit;
	caps[0].inheritable &= ~bit;
	return syscall(SYS_capset, &head, caps) ? -errno : 0;
}

static int confine(const char *tree, struct pil_err *err)
{
	struct rlimit memory = {MAX_MEMORY_BYTES, MAX_MEMORY_BYTES};
	iconv_t conversion = iconv_open("UTF-8", "UTF-8"); /* libc reads its list of others now */
	int ret = 0;

	if (conversion != (iconv_t)-1)
		iconv_close(conversion);
	umask(0);
	pil_raise_fd_limit();
	if (setrlimit(RLIMIT_AS, &memory) || chdir(tree) || chroot(".") || chdir("/"))
		ret = -errno;
	if (!ret)
		ret = give_up_chroot();
	return ret ? pil_err_set(err, -ret, "settle in folder '%s'", tree) : 0;
}

static int unpack(char **args, int n, struct pil_err *err)
{
	struct extract_limits limits = {.files = MAX_FILES};
	int ret;

	if (n != 2 || !str_to_u64(args[1], UINT64_MAX, &limits.bytes))
		return pil_err_say(err, EINVAL, "unpack TREE MAX_BYTES");
	ret = confine(args[0], err);
	return ret ? ret : extract_run(STDIN_FILENO, EXTRACT_ALL, &limits, err);
}

static int layers(char **args, int n, struct pil_err *err)
{
	struct extract_limits limits = {.files = MAX_FILES};
	struct oci_config config = {0};
	_auto_fd int image_fd = -1;
	int ret;

	if (n < 3 || n > 4 || !str_to_u64(args[1], UINT64_MAX, &limits.bytes))
		return pil_err_say(err, EINVAL, "layers TREE MAX_BYTES IMAGE [TAG]");
	image_fd = open(args[2], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (image_fd < 0)
		return pil_err_set(err, errno, "open folder '%s'", args[2]);
	ret = confine(args[0], err);
	if (!ret)
		ret = layers_apply(image_fd, n == 4 ? args[3] : NULL, &limits, &config, err);
	if (!ret)
		layers_print(stdout, &config);
	oci_config_finish(&config);
	return ret;
}

static int pack(char **args, int n, struct pil_err *err)
{
	struct rlimit memory = {MAX_MEMORY_BYTES, MAX_MEMORY_BYTES};

	if (n != 2)
		return pil_err_say(err, EINVAL, "pack TREE FILTER");
	if (setrlimit(RLIMIT_AS, &memory))
		return pil_err_set(err, errno, "limit memory");
	return pack_run(args[0], STDOUT_FILENO, args[1], err);
}

static const struct {
	const char *name;
	int (*run)(char **args, int n, struct pil_err *err);
} verbs[] = {{"layers", layers}, {"pack", pack}, {"unpack", unpack}};

int main(int argc, char **argv)
{
	struct pil_err err = {0};
	char safe[2 * sizeof(err.msg)];
	int report_fd = report_take_fd(&argc, argv);
	int ret = pil_err_say(&err, EINVAL, "usage: pillion-archive unpack|layers|pack TREE ...");

	setlocale(LC_CTYPE, "C.UTF-8"); /* names in archives are UTF-8, or bytes */
	for (size_t i = 0; argc > 1 && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (strcmp(argv[1], verbs[i].name) != 0)
			continue;
		err = (struct pil_err){0};
		ret = verbs[i].run(argv + 2, argc - 2, &err);
	}
	if (!ret && fflush(stdout))
		ret = pil_err_set(&err, errno, "write");
	if (!ret)
		return EXIT_SUCCESS;
	report_send(report_fd, &err);
	fprintf(stderr, "%s\n", str_escape_controls(safe, sizeof(safe), err.msg));
	return EXIT_FAILURE;
}
