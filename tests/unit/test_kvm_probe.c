/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/kvm_probe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/compiler.h"

/* As pillion-vmm --probe prints them. */
static const struct {
	const char *text;
	enum kvm_state state;
	const char *why; /* part of it */
} answers[] = {
	{"{\"kvm\":\"usable\",\"processors\":128,\"slowdown\":1.03,\"why\":\"\",\"hint\":\"\"}\n",
	 KVM_USABLE, "at the host's speed"},
	{"{\"kvm\":\"emulated\",\"slowdown\":512.40,\"why\":\"this KVM emulates guests\","
	 "\"hint\":\"use a host\"}\n",
	 KVM_EMULATED, "512 times slower"},
	{"{\"kvm\":\"emulated\",\"slowdown\":null,\"why\":\"a guest of five instructions does not "
	 "run on this KVM\",\"hint\":\"\"}\n",
	 KVM_EMULATED, "a guest of five instructions does not run on this KVM"},
	{"{\"kvm\":\"denied\",\"slowdown\":null,\"why\":\"open '/dev/kvm': Permission denied\","
	 "\"hint\":\"\"}\n",
	 KVM_DENIED, "usermod -aG kvm"},
	{"{\"kvm\":\"absent\",\"slowdown\":null,\"why\":\"make a virtual machine: Device or "
	 "resource busy\",\"hint\":\"\"}\n",
	 KVM_ABSENT, "make a virtual machine: Device or resource busy"},
	{"{\"kvm\":\"absent\",\"slowdown\":null,\"why\":\"this KVM lacks KVM_CAP_SIGNAL_MSI\","
	 "\"hint\":\"a newer kernel\"}\n",
	 KVM_ABSENT, "this KVM lacks KVM_CAP_SIGNAL_MSI; a newer kernel"},
	{"{\"kvm\":\"absent\",\"slowdown\":null,\"why\":\"\",\"hint\":\"\"}\n", KVM_ABSENT,
	 "no /dev/kvm"},
};

static void test_every_answer_is_understood(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		struct kvm_verdict v = {0};

		assert_true(kvm_probe_parse(answers[i].text, &v));
		assert_int_equal(v.state, answers[i].state);
		assert_non_null(strstr(v.why, answers[i].why));
	}
}

static void test_processors_are_as_many_as_host_and_kvm_have(void **state)
{
	struct kvm_verdict v = {0};

	(void)state;
	assert_true(kvm_probe_parse(answers[0].text, &v));
	assert_int_equal(v.max_processors, 128);
	assert_int_equal(kvm_probe_processors(0, 256, v.max_processors), 128);
	assert_int_equal(kvm_probe_processors(200, 256, 128), 128);
	assert_int_equal(kvm_probe_processors(4, 256, 128), 4);
	assert_int_equal(kvm_probe_processors(0, 8, 128), 8);
	assert_int_equal(kvm_probe_processors(16, 8, 128), 8);
	assert_int_equal(kvm_probe_processors(0, 8, 0), 8);
	assert_int_equal(kvm_probe_processors(0, -1, 4), 1);
}

static void test_other_text_is_no_answer(void **state)
{
	static const char *const bad[] = {"",
					  "{}",
					  "[]",
					  "{\"kvm\":1}",
					  "{\"kvm\":\"usable\",\"processors\":-1}",
					  "{\"kvm\":\"perhaps\"}",
					  "{\"kvm\":\"usable\""};
	struct kvm_verdict v = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(kvm_probe_parse(bad[i], &v));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_answer_is_understood),
		cmocka_unit_test(test_processors_are_as_many_as_host_and_kvm_have),
		cmocka_unit_test(test_other_text_is_no_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
