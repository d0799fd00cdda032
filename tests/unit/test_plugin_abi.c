/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/ggml/versions.h"
#include "base/fd.h"
#include "base/str.h"
#include "guest/ggml/gdev.h"
#include "guest/ggml/opmap.h"
#include "guest/ggml/program.h"

/* ---- a program's ggml, with numbers unlike ours ---- */

static const char *op_name(int op)
{
	static const char *const names[] = {"NONE", "MUL_MAT", "CUSTOM", "UNARY", "NEWEST", "GLU"};

	assert_in_range(op, 0, 5); /* never past the last name */
	return names[op];
}

static const char *unary_name(int op)
{
	static const char *const names[] = {"GELU", "ABS", "TRUNC"};

	assert_in_range(op, 0, 2);
	return names[op];
}

static const char *glu_name(int op)
{
	static const char *const names[] = {"SWIGLU", "SWIGLU_CLAMP"};

	assert_in_range(op, 0, 1);
	return names[op];
}

static int64_t blck_size(int type)
{
	return type == 8 ? 32 : type == 4 ? 0 : 1;
}

static size_t type_size(int type)
{
	return type == 8 ? 34 : 4;
}

static const struct program fake_program = {.generation = ABI_V3,
					    .op_name = op_name,
					    .unary_op_name = unary_name,
					    .glu_op_name = glu_name,
					    .blck_size = blck_size,
					    .type_size = type_size};

static void test_versions_pick_their_generation(void **state)
{
	uint32_t v[3];

	(void)state;
	assert_int_equal(program_parse_version("0.25.3", v), ABI_V2);
	assert_int_equal(v[2], 3);
	assert_int_equal(program_parse_version("0.26.0", v), ABI_V3);
	assert_int_equal(program_parse_version("0.27.0-dirty", v), ABI_V3);
	assert_int_equal(program_parse_version("0.24.9", v), ABI_UNKNOWN);
	assert_int_equal(program_parse_version("0.28.0", v), ABI_UNKNOWN);
	assert_int_equal(program_parse_version("1.27.0", v), ABI_UNKNOWN);
	assert_int_equal(program_parse_version("0", v), ABI_UNKNOWN);
	assert_int_equal(program_parse_version("0.", v), ABI_UNKNOWN);
	assert_int_equal(program_parse_version("0.27", v), ABI_V3);
	assert_int_equal(program_parse_version("-1.27.0", v), ABI_UNKNOWN);
	assert_int_equal(program_parse_version("", v), ABI_UNKNOWN);
	for (int minor = 0; minor < GGML_NEWEST_MINOR + 10; minor++) {
		_auto_free char *text = str_printf("0.%d.0", minor);
		bool known = minor >= GGML_OLDEST_MINOR && minor <= GGML_NEWEST_MINOR;

		assert_int_equal(program_parse_version(text, v) != ABI_UNKNOWN, known);
	}
}

static void test_own_symbols_are_found_in_symtab(void **state)
{
	static const char *const names[] = {"program_parse_symtab", "no_such_function"};
	_auto_free char *self = NULL;
	uint64_t values[2];
	ssize_t len = pil_read_file("/proc/self/exe", 64 << 20, &self);

	(void)state;
	assert_true(len > 0);
	assert_true(program_parse_symtab((uint8_t *)self, (size_t)len, names, 2, values));
	assert_true(values[0] != 0);
	assert_true(values[1] == 0);
}

static void test_cut_elf_files_are_harmless(void **state)
{
	static const char *const names[] = {"program_parse_symtab"};
	_auto_free char *self = NULL;
	uint64_t values[1];
	ssize_t len = pil_read_file("/proc/self/exe", 64 << 20, &self);

	(void)state;
	assert_true(len > 0);
	for (size_t cut = 0; cut < 128; cut++)
		program_parse_symtab((uint8_t *)self, cut, names, 1, values);
	for (size_t cut = 0; cut < (size_t)len; cut += 4093) {
		/* an allocation of just that size, so that a sanitizer sees a read past it */
		uint8_t *part = malloc(cut + 1);

		memcpy(part, self, cut);
		program_parse_symtab(part, cut, names, 1, values);
		free(part);
	}
}

static void test_operations_are_mapped_by_name(void **state)
{
	struct opmap map;

	(void)state;
	opmap_init(&map, &fake_program);
	assert_int_equal(opmap_op(&map, 0), WIRE_T_NONE);
	assert_int_equal(opmap_op(&map, 1), WIRE_T_MUL_MAT);
	assert_int_equal(opmap_op(&map, 2), -1); /* a function of the program */
	assert_int_equal(opmap_op(&map, 4), -1); /* one we do not know */
	assert_int_equal(opmap_op(&map, 5), WIRE_T_GLU);
	assert_int_equal(opmap_op(&map, 6), -1);
	assert_int_equal(opmap_op(&map, -1), -1);
	assert_int_equal(opmap_op(&map, 100000), -1);
}

static void test_unary_parameters_are_translated(void **state)
{
	struct ggml_tensor t = {.op = 3, .ne = {1, 1, 1, 1}, .name = "x"};
	struct wire_tensor w;
	struct opmap map;

	(void)state;
	opmap_init(&map, &fake_program);
	t.op_params[0] = 0;
	assert_true(opmap_encode(&map, &t, &w));
	assert_int_equal(w.params[0], WIRE_UNARY_GELU);
	t.op_params[0] = 3;
	assert_false(opmap_encode(&map, &t, &w));
	t.op_params[0] = -1;
	assert_false(opmap_encode(&map, &t, &w));
	t.op = 2;
	assert_false(opmap_encode(&map, &t, &w));
	assert_true(opmap_encode_leaf(&map, &t, &w)); /* as data it is fine */
	t.type = 4;
	assert_false(opmap_encode_leaf(&map, &t, &w));
	t.type = -5;
	assert_false(opmap_encode_leaf(&map, &t, &w));
}

static void test_nbytes_agrees_with_ggml(void **state)
{
	struct ggml_tensor f32 = {.type = 0, .ne = {3, 2, 1, 1}, .nb = {4, 16, 32, 32}};
	struct ggml_tensor q8 = {.type = 8, .ne = {64, 3, 1, 1}, .nb = {34, 68, 204, 204}};
	struct opmap map;

	(void)state;
	opmap_init(&map, &fake_program);
	assert_int_equal(opmap_nbytes(&map, &f32), 4 + 2 * 4 + 16);
	assert_int_equal(opmap_nbytes(&map, &q8), 68 * 3);
	f32.ne[2] = 0;
	assert_int_equal(opmap_nbytes(&map, &f32), 0);
	f32.type = 99;
	assert_int_equal(opmap_nbytes(&map, &f32), 0);
}

static void test_descriptions_hide_kinds_of_devices(void **state)
{
	struct wire_device info = {.flags = WIRE_DEVICE_REFERENCE, .description = "Some CPU"};
	static struct gdev dev;
	char out[64];

	(void)state;
	gdev_describe(out, sizeof(out), "AMD Radeon (Vulkan, ROCm)\n");
	assert_string_equal(out, "AMD Radeon (, )?");
	gdev_describe(out, 5, "abcdefgh");
	assert_string_equal(out, "abcd");
	gplugin.program.generation = ABI_V3;
	gdev_init(&dev, 3, &info);
	assert_string_equal(dev.name, "Pillion3");
	assert_string_equal(dev.description, "reference device (host CPU: Some CPU)");
}

static void test_programs_are_told_the_address_of_the_card(void **state)
{
	struct wire_device info = {.card = "0000:01:00.0"};
	struct ggml_backend_dev_props props;
	static struct gdev dev;

	(void)state;
	gdev_init(&dev, 0, &info);
	atomic_store(&dev.no_answer, true); /* of a broker: there is none */
	dev.abi.iface.get_props(&dev.abi, &props);
	assert_string_equal(props.device_id, "0000:01:00.0");
	strcpy(dev.info.card, "cpu");
	dev.abi.iface.get_props(&dev.abi, &props);
	assert_null(props.device_id);
}

static void test_buffer_types_fit_both_generations(void **state)
{
	static const enum abi_generation generations[] = {ABI_V2, ABI_V3};
	struct wire_device info = {.description = "x"};
	static struct gdev dev;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(generations); i++) {
		gplugin.program.generation = generations[i];
		gdev_init(&dev, 0, &info);
		assert_true(gdev_buft_is_host(&dev.host_buft));
		assert_false(gdev_buft_is_host(&dev.buft));
		assert_ptr_equal(generations[i] == ABI_V2 ? dev.buft.v2.device : dev.buft.v3.device,
				 &dev.abi);
		assert_string_equal(dev.buft.v2.get_name(&dev.buft), "Pillion0");
	}
	/* where each member is, counted in pointers from the headers of ggml 0.25 and 0.27 */
	assert_int_equal(offsetof(struct abi_buffer_type_v2, is_host), 5 * sizeof(void *));
	assert_int_equal(offsetof(struct abi_buffer_type_v3, is_host), 7 * sizeof(void *));
	assert_int_equal(offsetof(struct ggml_backend_i, graph_compute), 12 * sizeof(void *));
	assert_int_equal(sizeof(struct ggml_backend_i), 16 * sizeof(void *));
	assert_int_equal(sizeof(struct ggml_backend_device_i), 15 * sizeof(void *));
	assert_int_equal(offsetof(struct ggml_cgraph, uid), 88);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions_pick_their_generation),
		cmocka_unit_test(test_own_symbols_are_found_in_symtab),
		cmocka_unit_test(test_cut_elf_files_are_harmless),
		cmocka_unit_test(test_operations_are_mapped_by_name),
		cmocka_unit_test(test_unary_parameters_are_translated),
		cmocka_unit_test(test_nbytes_agrees_with_ggml),
		cmocka_unit_test(test_descriptions_hide_kinds_of_devices),
		cmocka_unit_test(test_programs_are_told_the_address_of_the_card),
		cmocka_unit_test(test_buffer_types_fit_both_generations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
