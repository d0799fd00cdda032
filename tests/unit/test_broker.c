/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "broker/cards.h"
#include "broker/devices.h"
#include "broker/filter.h"
#include "broker/hello.h"
#include "broker/token.h"
#include "emulated.h"

/* ---- hello ---- */

static struct wire_hello good_hello(void)
{
	return (struct wire_hello){.magic = WIRE_MAGIC,
				   .version = WIRE_VERSION,
				   .want = WIRE_WANT_LIST,
				   .api = 1};
}

static enum hello_state feed(struct hello *h, const void *bytes, size_t len)
{
	size_t room;
	void *into = hello_room(h, &room);

	assert_true(len <= room);
	memcpy(into, bytes, len);
	return hello_received(h, len);
}

static enum hello_state feed_whole(const struct wire_hello *w)
{
	struct hello h = {0};

	return feed(&h, w, sizeof(*w));
}

static void test_hello_byte_by_byte_is_complete_with_the_last(void **state)
{
	struct wire_hello w = good_hello();
	struct hello h = {0};

	(void)state;
	for (size_t i = 0; i + 1 < sizeof(w); i++)
		assert_int_equal(feed(&h, (char *)&w + i, 1), HELLO_MORE);
	assert_int_equal(feed(&h, (char *)&w + sizeof(w) - 1, 1), HELLO_LIST);
}

static void test_hello_of_a_stranger_is_told_by_its_first_bytes(void **state)
{
	struct hello h = {0};

	(void)state;
	assert_int_equal(feed(&h, "GET ", 4), HELLO_BAD);
}

static void test_hello_of_another_version_need_not_be_complete(void **state)
{
	struct wire_hello w = good_hello();
	struct hello h = {0};

	(void)state;
	w.version++;
	assert_int_equal(feed(&h, &w, 6), HELLO_OTHER);
}

static void test_hello_wants_list_or_open_and_nothing_else(void **state)
{
	struct wire_hello w = good_hello();

	(void)state;
	assert_int_equal(feed_whole(&w), HELLO_LIST);
	w.want = WIRE_WANT_OPEN;
	assert_int_equal(feed_whole(&w), HELLO_OPEN);
	w.want = 0;
	assert_int_equal(feed_whole(&w), HELLO_BAD);
	w.want = 3;
	assert_int_equal(feed_whole(&w), HELLO_BAD);
}

static void test_hello_with_reserved_bits_is_refused(void **state)
{
	struct wire_hello w = good_hello();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(w.reserved); i++) {
		w.reserved[i] = 1;
		assert_int_equal(feed_whole(&w), HELLO_BAD);
		w.reserved[i] = 0;
	}
	assert_int_equal(feed_whole(&w), HELLO_LIST);
}

static void test_hello_program_name_is_terminated(void **state)
{
	struct wire_hello w = good_hello();
	struct hello h = {0};

	(void)state;
	memset(w.program, 'x', sizeof(w.program));
	feed(&h, &w, sizeof(w));
	assert_int_equal(strlen(h.wire.program), sizeof(w.program) - 1);
}

/* ---- tokens ---- */

static void test_token_survives_the_way_to_hex_and_back(void **state)
{
	uint8_t raw[WIRE_TOKEN_BYTES], back[WIRE_TOKEN_BYTES];
	char hex[TOKEN_HEX + 2];

	(void)state;
	for (int i = 0; i < WIRE_TOKEN_BYTES; i++)
		raw[i] = (uint8_t)(i * 7 + 1);
	token_to_hex(raw, hex);
	assert_true(token_from_hex(hex, back));
	assert_memory_equal(raw, back, sizeof(raw));
	strcat(hex, "\n");
	assert_true(token_from_hex(hex, back));
}

static void test_token_that_is_not_64_digits_is_refused(void **state)
{
	char hex[TOKEN_HEX + 3];
	uint8_t raw[WIRE_TOKEN_BYTES];

	(void)state;
	memset(hex, 'a', sizeof(hex));
	hex[TOKEN_HEX + 1] = '\0';
	assert_false(token_from_hex(hex, raw)); /* one too many */
	hex[TOKEN_HEX - 1] = '\0';
	assert_false(token_from_hex(hex, raw)); /* one short */
	memset(hex, 'a', TOKEN_HEX);
	hex[TOKEN_HEX] = '\0';
	hex[5] = 'G';
	assert_false(token_from_hex(hex, raw));
	hex[5] = 'A';
	assert_false(token_from_hex(hex, raw));
}

static void write_text(const char *dir, const char *name, const char *text)
{
	_auto_free char *path = str_printf("%s/%s", dir, name);

	assert_int_equal(path_mkdirs(dir, 0700), 0);
	assert_int_equal(pil_write_file(path, 0600, text, strlen(text)), 0);
}

static void test_token_is_of_one_machine(void **state)
{
	char base[] = "/tmp/test-broker-XXXXXX";
	struct state_dirs dirs = {.runtime = mkdtemp(base)};
	_auto_free char *one = str_printf("%s/machines/one", base);
	_auto_free char *two = str_printf("%s/machines/two", base);
	uint8_t raw[WIRE_TOKEN_BYTES];
	char hex[TOKEN_HEX + 1];

	(void)state;
	memset(raw, 0x5a, sizeof(raw));
	token_to_hex(raw, hex);
	assert_false(token_check(&dirs, "two", raw)); /* no folder at all */
	write_text(one, "token", "short\n");
	write_text(two, "token", hex);
	assert_true(token_check(&dirs, "two", raw));
	assert_false(token_check(&dirs, "one", raw)); /* another machine's */
	assert_false(token_check(&dirs, "../machines/two", raw));
	assert_false(token_check(&dirs, "", raw));
	raw[31] ^= 1;
	assert_false(token_check(&dirs, "two", raw));
	assert_int_equal(path_remove_tree(base), 0);
}

/* ---- the table of devices ---- */

static const struct wire_device cpu = {.index = 0,
				       .api = 1,
				       .flags = WIRE_DEVICE_REFERENCE,
				       .memory_total = 9ull << 33,
				       .memory_free = 5,
				       .name = "CPU",
				       .description = "a \"processor\" \xc3\xa9",
				       .card = "cpu"};
static const struct wire_device gpu = {.index = 3,
				       .api = 1,
				       .api_version = 2,
				       .api_name = "an API",
				       .memory_total = 1,
				       .name = "GPU",
				       .card = "0000:01:00.0"};

static void test_devices_cache_gives_back_what_was_put_in(void **state)
{
	const struct wire_device in[] = {cpu, gpu};
	struct wire_device out[WIRE_MAX_DEVICES];
	_auto_free char *text = devices_format("key", in, 2);

	(void)state;
	assert_int_equal(devices_parse(text, "key", out), 2);
	assert_memory_equal(&out[0], &cpu, sizeof(cpu));
	assert_memory_equal(&out[1], &gpu, sizeof(gpu));
}

static void test_devices_cache_of_another_key_or_malformed_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{\"key\":\"key\"}",
		"{\"key\":\"key\",\"devices\":{}}",
		"{\"key\":\"key\",\"devices\":[1]}",
		"{\"key\":\"key\",\"devices\":[{\"index\":0,\"flags\":0,\"api\":1,"
		"\"api_version\":1,\"api_name\":\"a\",\"memory_total\":-1,"
		"\"memory_free\":0,\"name\":\"a\",\"description\":\"\",\"card\":\"a\"}]}",
		"{\"key\":\"key\",\"devices\":[{\"index\":0,\"flags\":0,\"api\":1,"
		"\"api_version\":1,\"api_name\":\"a\",\"memory_total\":1,"
		"\"memory_free\":0,\"name\":\"\",\"description\":\"\",\"card\":\"a\"}]}",
		"{\"key\":\"key\",\"devices\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}",
	};
	struct wire_device out[WIRE_MAX_DEVICES];
	_auto_free char *text = devices_format("key", &cpu, 1);

	(void)state;
	assert_int_equal(devices_parse(text, "other", out), -EINVAL);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(devices_parse(bad[i], "key", out), -EINVAL);
}

static void test_reference_device_is_listed_alone_or_last_on_request(void **state)
{
	struct wire_device both[WIRE_MAX_DEVICES] = {cpu, gpu}, alone[WIRE_MAX_DEVICES] = {cpu};

	(void)state;
	assert_int_equal(devices_select(both, 2, true), 2);
	assert_string_equal(both[0].name, "GPU");
	assert_string_equal(both[1].name, "CPU");
	assert_int_equal(devices_select(both, 2, false), 1);
	assert_string_equal(both[0].name, "GPU");
	assert_int_equal(devices_select(alone, 1, false), 1);
	assert_int_equal(devices_select(alone, 0, true), 0);
}

static const char *card_of(const char *name, uint32_t flags, const char *claimed)
{
	static struct wire_device d;

	d = (struct wire_device){.flags = flags};
	snprintf(d.name, sizeof(d.name), "%s", name);
	snprintf(d.card, sizeof(d.card), "%s", claimed);
	cards_name(&d);
	return d.card;
}

static void test_card_is_an_address_or_the_cpu_or_the_device_alone(void **state)
{
	static const char *const bad[] = {
		"", "0000:01:00", "0000:01:00.00", "0000:01:0g.0", "0000.01:00.0", "GPU-2f1c"};

	(void)state;
	assert_string_equal(card_of("CUDA0", 0, "0000:C1:0a.0"), "0000:c1:0a.0");
	assert_string_equal(card_of("Vulkan0", 0, "0000:c1:0A.0"), "0000:c1:0a.0");
	assert_string_equal(card_of("CPU", WIRE_DEVICE_REFERENCE, "0000:01:00.0"), "cpu");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_string_equal(card_of("Vulkan0", 0, bad[i]), "Vulkan0");
}

static void test_devices_of_one_card_share_its_row(void **state)
{
	const struct wire_device shared = {0}, single = {.flags = WIRE_DEVICE_PER_PROGRAM};
	struct cards cards = {0};
	struct cards_row *row = cards_get(&cards, "0000:01:00.0");

	(void)state;
	assert_ptr_not_equal(cards_get(&cards, "cpu"), row);
	assert_ptr_equal(cards_get(&cards, "0000:01:00.0"), row);
	for (int i = 2; i < WIRE_MAX_DEVICES; i++)
		assert_non_null(cards_get(&cards, (char[]){(char)('a' + i), '\0'}));
	assert_null(cards_get(&cards, "one more"));
	assert_int_equal(cards_join(row, &shared, NULL), 0);
	ledger_file_take(&row->ledger, 0, 1234567);
	assert_int_equal(cards_join(row, &shared, NULL), 1);
	for (int i = 1; i < LEDGER_EXECUTORS - CARDS_SHARED; i++) {
		assert_int_equal(cards_join(row, &single, NULL), i);
		ledger_file_take(&row->ledger, i, i + 1);
	}
	assert_int_equal(cards_join(row, &single, NULL), -EBUSY);
	assert_int_equal(cards_join(row, &shared, NULL), LEDGER_EXECUTORS - CARDS_SHARED);
	for (int i = 1; i < LEDGER_EXECUTORS - CARDS_SHARED; i++)
		assert_true(cards_reaped(&cards, i + 1));
	assert_false(cards_reaped(&cards, 7654321));
	assert_true(cards_reaped(&cards, 1234567));
	assert_int_equal(cards_join(row, &shared, NULL),
			 0); /* it was the last, and its number is clear */
	cards_finish(&cards);
}

/* ---- the filter ---- */

static void *nothing(void *arg)
{
	return arg;
}

/* In a child under the filter: 0, or the number of the first expectation that does not hold. */
static int under_filter(int filter_fd)
{
	struct sock_filter code[4096];
	ssize_t n = read(filter_fd, code, sizeof(code));
	struct sock_fprog program = {.len = (unsigned short)((size_t)n / sizeof(code[0])),
				     .filter = code};
	pthread_t thread;
	int fd;

	if (n <= 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 1;
	if (socket(AF_INET, SOCK_STREAM, 0) >= 0 || errno != ENOSYS)
		return 2;
	if (socket(AF_NETLINK, SOCK_RAW, 0) >= 0 || socket(AF_PACKET, SOCK_RAW, 0) >= 0)
		return 3;
	if ((fd = socket(AF_UNIX, SOCK_STREAM, 0)) < 0 || close(fd))
		return 4;
	if (unshare(CLONE_NEWUSER) == 0 || errno != ENOSYS)
		return 5;
	if (syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL) >= 0)
		return 6;
	if (syscall(SYS_clone3, NULL, 0) == 0 || errno != ENOSYS)
		return 7;
	if (syscall(SYS_ptrace, 0, 0, 0, 0) >= 0 || errno != ENOSYS)
		return 8;
	if (syscall(SYS_io_uring_setup, 1, NULL) >= 0 || errno != ENOSYS)
		return 9;
	if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
		return 10;
	if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
	    MAP_FAILED)
		return 11;
	if ((fd = memfd_create("x", MFD_CLOEXEC)) < 0 || ftruncate(fd, 4096))
		return 12;
	return 0;
}

static void test_filter_stops_what_leads_out_and_lets_threads_and_jits_work(void **state)
{
	struct pil_err err = {0};
	int fd = filter_create(&err), status;
	pid_t pid;

	(void)state;
	skip_if_emulated("the filter sees the emulator's system calls");
	assert_true(fd >= 0);
	pid = fork();
	if (pid == 0)
		_exit(under_filter(fd));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(fd);
}

static void test_filter_names_no_call_that_leads_out(void **state)
{
	static const char *const out[] = {
		"bpf",
		"chroot",
		"clone3",
		"fsopen",
		"init_module",
		"io_uring_setup",
		"kexec_load",
		"keyctl",
		"mount",
		"move_mount",
		"open_by_handle_at",
		"perf_event_open",
		"pidfd_getfd",
		"pivot_root",
		"process_vm_readv",
		"ptrace",
		"reboot",
		"setns",
		"shmget",
		"swapon",
		"umount2",
		"unshare",
		"userfaultfd",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(out); i++)
		assert_false(filter_allows(out[i]));
	assert_true(filter_allows("read"));
	assert_true(filter_allows("arch_prctl"));
	assert_true(filter_allows("writev"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hello_byte_by_byte_is_complete_with_the_last),
		cmocka_unit_test(test_hello_of_a_stranger_is_told_by_its_first_bytes),
		cmocka_unit_test(test_hello_of_another_version_need_not_be_complete),
		cmocka_unit_test(test_hello_wants_list_or_open_and_nothing_else),
		cmocka_unit_test(test_hello_with_reserved_bits_is_refused),
		cmocka_unit_test(test_hello_program_name_is_terminated),
		cmocka_unit_test(test_token_survives_the_way_to_hex_and_back),
		cmocka_unit_test(test_token_that_is_not_64_digits_is_refused),
		cmocka_unit_test(test_token_is_of_one_machine),
		cmocka_unit_test(test_devices_cache_gives_back_what_was_put_in),
		cmocka_unit_test(test_devices_cache_of_another_key_or_malformed_is_refused),
		cmocka_unit_test(test_reference_device_is_listed_alone_or_last_on_request),
		cmocka_unit_test(test_card_is_an_address_or_the_cpu_or_the_device_alone),
		cmocka_unit_test(test_devices_of_one_card_share_its_row),
		cmocka_unit_test(test_filter_stops_what_leads_out_and_lets_threads_and_jits_work),
		cmocka_unit_test(test_filter_names_no_call_that_leads_out),
	};

	return cmocka_run_group_tests_name("broker", tests, NULL, NULL);
}
