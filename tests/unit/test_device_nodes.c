/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of device nodes, in a folder that looks like a host with one card of each kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/compiler.h"
#include "port/device_nodes.h"

static const char *const folders[] = {"dev", "dev/accel", "dev/dma_heap", "dev/dri",
				      "dev/nvidia-caps"};
static const char *const nodes[] = {
	"dev/accel/accel0",   "dev/davinci0",  "dev/dma_heap/system", "dev/dri/card0",
	"dev/dri/renderD128", "dev/dxg",       "dev/fastrpc-cdsp",    "dev/kfd",
	"dev/nvidia0",        "dev/nvidiactl", "dev/nvidia-uvm",      "dev/nvidia-caps/nvidia-cap1",
};
static const char *const others[] = {"dev/null", "dev/sda", "dev/kvm", "dev/kfd2", "dev/mem"};
static char root[] = "/tmp/pillion-nodes-XXXXXX";

static void path_of(char *out, const char *name)
{
	snprintf(out, 128, "%s/%s", root, name);
}

static void touch(const char *name)
{
	char path[128];
	int fd;

	path_of(path, name);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
}

static int setup(void **state)
{
	char path[128];

	(void)state;
	if (!mkdtemp(root))
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		path_of(path, folders[i]);
		if (mkdir(path, 0700))
			return -1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
		touch(nodes[i]);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		touch(others[i]);
	return 0;
}

static int teardown(void **state)
{
	char path[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
		path_of(path, nodes[i]), unlink(path);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		path_of(path, others[i]), unlink(path);
	for (size_t i = ARRAY_SIZE(folders); i-- > 0;)
		path_of(path, folders[i]), rmdir(path);
	return rmdir(root);
}

static int times_found(const glob_t *found, const char *name)
{
	char path[128];
	int n = 0;

	path_of(path, name);
	for (size_t i = 0; i < found->gl_pathc; i++)
		n += !strcmp(found->gl_pathv[i], path);
	return n;
}

static void test_each_kind_of_node_is_found_once_and_no_other(void **state)
{
	glob_t found;

	(void)state;
	device_nodes_all(root, &found);
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++)
		if (times_found(&found, nodes[i]) != 1)
			fail_msg("%s", nodes[i]);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (times_found(&found, others[i]))
			fail_msg("%s", others[i]);
	assert_int_equal(found.gl_pathc, ARRAY_SIZE(nodes) + ARRAY_SIZE(folders) - 1);
	globfree(&found);
}

static void test_a_jail_binds_folders_and_what_is_in_none(void **state)
{
	glob_t found;

	(void)state;
	device_nodes_top(root, &found);
	assert_int_equal(times_found(&found, "dev/dri"), 1);
	assert_int_equal(times_found(&found, "dev/dri/card0"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) { /* each node is bound, or its folder */
		char folder[128];

		snprintf(folder, sizeof(folder), "%s", nodes[i]);
		*strrchr(folder, '/') = '\0';
		assert_int_equal(times_found(&found, nodes[i]) + times_found(&found, folder), 1);
	}
	globfree(&found);
}

static void test_a_new_node_changes_the_list(void **state)
{
	static const char *const fresh[] = {"dev/dri/renderD129", "dev/dxg2", "dev/davinci1",
					    "dev/fastrpc-adsp", "dev/dma_heap/reserved"};
	glob_t before, after;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(fresh); i++) {
		size_t more = strcmp(fresh[i], "dev/dxg2") ? 1 : 0; /* there is one dxg */
		char path[128];

		device_nodes_all(root, &before);
		touch(fresh[i]);
		device_nodes_all(root, &after);
		assert_int_equal(after.gl_pathc, before.gl_pathc + more);
		path_of(path, fresh[i]);
		unlink(path);
		globfree(&before);
		globfree(&after);
	}
}

static void test_a_host_without_cards_has_no_nodes(void **state)
{
	gid_t groups[4];
	glob_t found;

	(void)state;
	device_nodes_all("/proc/none", &found);
	assert_int_equal(found.gl_pathc, 0);
	globfree(&found);
	assert_int_equal(device_nodes_groups("/proc/none", groups, 4), 0);
}

/* A host with many cards has many nodes of one group: they must not fill the list. */
static void test_each_group_is_named_once(void **state)
{
	static const struct {
		const char *name;
		gid_t gid;
	} made[] = {{"dev/dri/card1", 44},       {"dev/dri/renderD130", 106}, {"dev/dri/card2", 44},
		    {"dev/nvidia-caps/c2", 107}, {"dev/nvidia9", 0},          {"dev/kvm9", 108}};
	gid_t groups[8];
	char path[128];
	int n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
		path_of(path, made[i].name);
		if (mknod(path, S_IFCHR | 0600, makedev(1, 3))) {
			print_message("mknod: %s: only root may\n", strerror(errno));
			skip();
		}
		assert_int_equal(chown(path, 0, made[i].gid), 0);
	}
	n = device_nodes_groups(root, groups, 8);
	for (size_t i = 0; i < ARRAY_SIZE(made); i++) {
		path_of(path, made[i].name);
		unlink(path);
	}
	assert_int_equal(n, 3);
	assert_int_equal(groups[0] + groups[1] + groups[2], 44 + 106 + 107);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_kind_of_node_is_found_once_and_no_other),
		cmocka_unit_test(test_a_jail_binds_folders_and_what_is_in_none),
		cmocka_unit_test(test_a_new_node_changes_the_list),
		cmocka_unit_test(test_a_host_without_cards_has_no_nodes),
		cmocka_unit_test(test_each_group_is_named_once),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
