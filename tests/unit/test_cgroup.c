/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a machine's control group is made, on trees of plain files; and what a real one does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "machine/cgroup.h"

struct tree {
	char folder[32];
	char *self, *mountinfo;
};

static void put(const char *folder, const char *file, const char *text)
{
	_auto_free char *path = str_printf("%s/%s", folder, file);

	assert_int_equal(path_mkdirs(folder, 0755), 0);
	assert_int_equal(pil_write_file(path, 0644, text, strlen(text)), 0);
}

static void tree_make(struct tree *t, const char *own, const char *root)
{
	_auto_free char *self = str_printf("4:memory:/x\n0::%s\n", own);
	_auto_free char *mounts = NULL;

	strcpy(t->folder, "/tmp/cgroup-XXXXXX");
	assert_non_null(mkdtemp(t->folder));
	mounts = str_printf("30 20 0:26 / /other rw - cgroup cgroup rw,pids\n"
			    "31 20 0:27 %s %s/fs rw shared:3 - cgroup2 cgroup2 rw\n",
			    root, t->folder);
	put(t->folder, "self", self);
	put(t->folder, "mountinfo", mounts);
	t->self = str_printf("%s/self", t->folder);
	t->mountinfo = str_printf("%s/mountinfo", t->folder);
}

static void tree_group(const struct tree *t, const char *path, const char *has, const char *gives)
{
	_auto_free char *folder = str_printf("%s/fs%s", t->folder, path);

	put(folder, "cgroup.procs", "");
	put(folder, "cgroup.controllers", has);
	put(folder, "cgroup.subtree_control", gives);
}

static char *written(const struct tree *t, const char *path)
{
	_auto_free char *file = str_printf("%s/fs%s/cgroup.subtree_control", t->folder, path);
	char *text = NULL;

	assert_true(pil_read_file(file, 100, &text) >= 0);
	return text;
}

static void tree_remove(struct tree *t)
{
	assert_int_equal(path_remove_tree(t->folder), 0);
	free(t->self);
	free(t->mountinfo);
}

static void expect_base(struct tree *t, const char *path)
{
	struct pil_err err = {0};
	_auto_free char *base = cgroup_base(t->self, t->mountinfo, &err);
	_auto_free char *wanted = str_printf("%s/fs%s", t->folder, path);

	assert_non_null(base);
	assert_string_equal(base, wanted);
}

static void expect_none(struct tree *t, const char *why)
{
	struct pil_err err = {0};

	assert_null(cgroup_base(t->self, t->mountinfo, &err));
	assert_non_null(strstr(err.msg, why));
	assert_non_null(strstr(err.hint, "Delegate=yes"));
}

static void test_group_is_made_beside_our_own(void **state)
{
	struct tree t;

	(void)state;
	tree_make(&t, "/user.slice/app.slice/a.scope", "/");
	tree_group(&t, "/user.slice/app.slice", "cpu memory pids\n", "memory pids\n");
	expect_base(&t, "/user.slice/app.slice");
	tree_remove(&t);
}

static void test_group_of_the_root_is_made_in_it(void **state)
{
	struct tree t;
	char *said;

	(void)state;
	tree_make(&t, "/", "/");
	tree_group(&t, "", "cpu memory pids\n", "pids\n");
	expect_base(&t, "");
	said = written(&t, ""); /* the kernel takes it as a command */
	assert_string_equal(said, "+memory");
	free(said);
	tree_remove(&t);
}

static void test_no_group_where_it_would_not_limit(void **state)
{
	struct tree t;

	(void)state;
	tree_make(&t, "/a/b", "/");
	tree_group(&t, "/a", "memory\n", "memory\n");
	expect_none(&t, "a controller is missing");
	tree_group(&t, "/a", "cpu pidsx memory\n", "pids memory\n");
	expect_none(&t, "a controller is missing");
	tree_remove(&t);
	tree_make(&t, "/../b", "/");
	expect_none(&t, "outside of what is mounted");
	tree_remove(&t);
	tree_make(&t, "/a/b", "/a");
	expect_none(&t, "not mounted");
	tree_remove(&t);
	tree_make(&t, "/a/b", "/");
	expect_none(&t, "none may be made in"); /* there is no such folder */
	tree_remove(&t);
}

/* In a child in the group: 0, or the line of what was not as expected. */
static int try_limits(const struct cgroup *g)
{
	pid_t pids[100];
	int made = 0;

	if (cgroup_enter(g))
		return __LINE__ & 0xff;
	while (made < 100) {
		pid_t pid = fork();

		if (pid == 0) {
			pause();
			_exit(0);
		}
		if (pid < 0)
			break;
		pids[made++] = pid;
	}
	for (int i = 0; i < made; i++)
		if (kill(pids[i], SIGKILL) || waitpid(pids[i], NULL, 0) != pids[i])
			return __LINE__ & 0xff;
	return made == 19 ? 0 : __LINE__ & 0xff;
}

/* A kernel without swap has no such file. */
static void forbid_swap(const struct cgroup *g)
{
	_auto_free char *path = str_printf("%s/memory.swap.max", g->folder);
	_auto_fd int fd = open(path, O_WRONLY | O_CLOEXEC);

	assert_true(fd < 0 ? errno == ENOENT : write(fd, "0", 1) == 1);
}

static int eat_memory(const struct cgroup *g)
{
	char *bytes;

	if (cgroup_enter(g))
		return __LINE__ & 0xff;
	bytes = mmap(NULL, 256 << 20, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	return bytes == MAP_FAILED ? __LINE__ & 0xff : 0;
}

static void test_real_group_limits_what_is_in_it(void **state)
{
	struct pil_err err = {0};
	_auto_free char *base = cgroup_base("/proc/self/cgroup", "/proc/self/mountinfo", &err);
	struct cgroup g, second;
	int status;
	pid_t pid;

	(void)state;
	if (!base) {
		print_message("%s\n", err.msg);
		skip();
	}
	assert_int_equal(cgroup_create(&g, base, "tested", 20, 64 << 20, &err), 0);
	assert_int_equal(cgroup_create(&second, base, "tested-too", 0, 0, &err), 0);
	cgroup_remove(&second);
	pid = fork();
	if (pid == 0)
		_exit(try_limits(&g));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	forbid_swap(&g);
	pid = fork();
	if (pid == 0)
		_exit(eat_memory(&g));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	cgroup_remove(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_group_is_made_beside_our_own),
		cmocka_unit_test(test_group_of_the_root_is_made_in_it),
		cmocka_unit_test(test_no_group_where_it_would_not_limit),
		cmocka_unit_test(test_real_group_limits_what_is_in_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
