/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "vmm/arch/x86_64/acpi.h"
#include "vmm/arch/x86_64/boot.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/arch/x86_64/power.h"
#include "vmm/bus.h"
#include "vmm/options.h"

enum { MEMORY_BYTES = 4 << 20, ENTRY = LAYOUT_HIGH + 0x10, FD_OFFSET = 8192 };

static int setup(void **state, int fd, int flags)
{
	struct guest_mem *mem = calloc(1, sizeof(*mem));
	uint8_t *host = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd,
			     FD_OFFSET * (fd >= 0));

	if (!mem || host == MAP_FAILED)
		return -1;
	*mem = (struct guest_mem){.n_ranges = 1, .fd = fd};
	mem->ranges[0] = (struct guest_mem_range){0, MEMORY_BYTES, host, FD_OFFSET};
	*state = mem;
	return 0;
}

static int setup_memory(void **state)
{
	return setup(state, -1, MAP_PRIVATE | MAP_ANONYMOUS);
}

static int setup_shared_memory(void **state)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	return ftruncate(fd, FD_OFFSET + MEMORY_BYTES) ? -1 : setup(state, fd, MAP_SHARED);
}

static int teardown_memory(void **state)
{
	struct guest_mem *mem = *state;

	munmap(mem->ranges[0].host, MEMORY_BYTES);
	pil_close_p(&mem->fd);
	free(mem);
	return 0;
}

/* A kernel of one page and its PVH note. */
struct file {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[3];
	struct {
		Elf64_Nhdr head;
		char name[4];
		uint32_t entry;
	} note;
	uint8_t pad[4096 - sizeof(Elf64_Ehdr) - 3 * sizeof(Elf64_Phdr) - 20];
	uint8_t text[4096 + 100];
};

static struct file good_file(void)
{
	struct file f = {
		.eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB},
		       .e_machine = EM_X86_64,
		       .e_phoff = offsetof(struct file, ph),
		       .e_phentsize = sizeof(Elf64_Phdr),
		       .e_phnum = 2},
		.ph = {{.p_type = PT_LOAD,
			.p_offset = offsetof(struct file, text),
			.p_paddr = LAYOUT_HIGH,
			.p_filesz = sizeof(f.text),
			.p_memsz = sizeof(f.text) + 5000},
		       {.p_type = PT_NOTE,
			.p_offset = offsetof(struct file, note),
			.p_filesz = sizeof(f.note)}},
		.note = {{4, 4, 18}, "Xen", ENTRY},
	};

	memset(f.text, 0x5a, sizeof(f.text));
	return f;
}

static int load(struct guest_mem *mem, const void *file, size_t len, struct boot_entry *entry,
		struct pil_err *err)
{
	_auto_fd int fd = memfd_create("kernel", MFD_CLOEXEC);
	struct boot_opts opts = {
		.kernel = "k", .kernel_fd = fd, .initrd = "i", .initrd_fd = fd, .cmdline = "quiet"};

	assert_int_equal(pwrite(fd, file, len, 0), len);
	*err = (struct pil_err){0};
	return boot_load(mem, &opts, entry, err);
}

static void test_a_kernel_lies_where_it_wants(void **state)
{
	struct guest_mem *mem = *state;
	uint8_t *host = mem->ranges[0].host;
	struct file f = good_file();
	struct boot_entry entry;
	struct pil_err err;

	assert_int_equal(load(mem, &f, sizeof(f), &entry, &err), 0);
	assert_int_equal(entry.entry_gpa, ENTRY);
	assert_memory_equal(host + LAYOUT_HIGH, f.text, sizeof(f.text));
	assert_int_equal(host[LAYOUT_HIGH + sizeof(f.text)], 0);
	assert_string_equal(host + LAYOUT_CMDLINE, "quiet");
}

/* A file of holes, but for one byte in the middle of a page, and at the end of another. */
static void test_the_holes_of_a_kernel_are_zero(void **state)
{
	enum { BYTES = 20 * 4096 + 1 };
	struct guest_mem *mem = *state;
	uint8_t *text = mem->ranges[0].host + LAYOUT_HIGH, *initrd;
	struct file f = good_file();
	_auto_fd int fd = memfd_create("kernel", MFD_CLOEXEC);
	struct boot_opts opts = {
		.kernel = "k", .kernel_fd = fd, .initrd = "i", .initrd_fd = fd, .cmdline = "quiet"};
	const off_t start = offsetof(struct file, text);
	struct boot_entry entry;
	struct pil_err err = {0};

	f.ph[0].p_filesz = f.ph[0].p_memsz = BYTES;
	f.ph[2] = (Elf64_Phdr){.p_type = PT_LOAD,
			       .p_offset = 1 << 30,
			       .p_paddr = LAYOUT_HIGH + (1 << 20),
			       .p_memsz = 4096}; /* nothing of it is in the file */
	f.eh.e_phnum = 3;
	assert_int_equal(pwrite(fd, &f, start + 4096, 0), start + 4096);
	assert_int_equal(pwrite(fd, "a", 1, start + 7 * 4096 + 50), 1);
	assert_int_equal(pwrite(fd, "z", 1, start + BYTES - 1), 1);
	assert_int_equal(boot_load(mem, &opts, &entry, &err), 0);
	for (size_t i = 0; i < BYTES; i++)
		assert_int_equal(text[i], i < 4096             ? 0x5a
					  : i == 7 * 4096 + 50 ? 'a'
					  : i == BYTES - 1     ? 'z'
							       : 0);
	initrd = mem->ranges[0].host + ((MEMORY_BYTES - start - BYTES) & ~4095);
	assert_memory_equal(initrd, &f, start + 4096);
	assert_memory_equal(initrd + start, text, BYTES);
}

static void expect_bad(struct guest_mem *mem, const struct file *f, size_t len, const char *what)
{
	struct boot_entry entry;
	struct pil_err err;

	assert_int_equal(load(mem, f, len, &entry, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, what));
}

static void test_a_bad_kernel_says_what_is_wrong(void **state)
{
	struct guest_mem *mem = *state;
	struct file f = good_file();

	expect_bad(mem, &f, 10, "not an ELF file");
	expect_bad(mem, &f, offsetof(struct file, ph), "before its table");
	expect_bad(mem, &f, sizeof(f) - 64, "middle of a segment");
	f.eh.e_phnum = 65535;
	expect_bad(mem, &f, sizeof(f), "no table of segments");
	f = good_file();
	f.eh.e_phoff = UINT64_MAX - 8;
	expect_bad(mem, &f, sizeof(f), "before its table");
	f = good_file();
	f.ph[0].p_paddr = 0x1000;
	expect_bad(mem, &f, sizeof(f), "outside the guest's memory");
	f.ph[0].p_paddr = UINT64_MAX - 100;
	expect_bad(mem, &f, sizeof(f), "outside the guest's memory");
	f = good_file();
	f.ph[0].p_memsz = UINT64_MAX;
	expect_bad(mem, &f, sizeof(f), "outside the guest's memory");
	f = good_file();
	f.note.entry = 5;
	expect_bad(mem, &f, sizeof(f), "no PVH entry");
	f.note.head.n_descsz = UINT32_MAX;
	expect_bad(mem, &f, sizeof(f), "no PVH entry");
}

static void test_too_long_a_command_line_is_refused(void **state)
{
	char cmdline[5000];
	struct file f = good_file();
	_auto_fd int fd = memfd_create("kernel", MFD_CLOEXEC);
	struct boot_opts opts = {.kernel = "k", .kernel_fd = fd, .cmdline = cmdline};
	struct boot_entry entry;
	struct pil_err err = {0};

	memset(cmdline, 'x', sizeof(cmdline));
	cmdline[sizeof(cmdline) - 1] = '\0';
	assert_int_equal(pwrite(fd, &f, sizeof(f), 0), sizeof(f));
	assert_int_equal(boot_load(*state, &opts, &entry, &err), -E2BIG);
}

static unsigned sum(const uint8_t *p, size_t n)
{
	unsigned total = 0;

	while (n--)
		total += *p++;
	return total & 0xff;
}

static void test_acpi_tables_add_up(void **state)
{
	struct guest_mem *mem = *state;
	uint8_t *host = mem->ranges[0].host;
	uint8_t *rsdp = host + acpi_write(mem, 5);
	uint64_t xsdt_gpa, table;
	uint32_t len, n_found = 0;

	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	memcpy(&xsdt_gpa, rsdp + 24, 8);
	memcpy(&len, host + xsdt_gpa + 4, 4);
	assert_int_equal(sum(host + xsdt_gpa, len), 0);
	for (size_t at = 36; at < len; at += 8, n_found++) {
		uint32_t table_len;

		memcpy(&table, host + xsdt_gpa + at, 8);
		memcpy(&table_len, host + table + 4, 4);
		assert_int_equal(sum(host + table, table_len), 0);
		if (!memcmp(host + table, "APIC", 4))
			assert_int_equal(table_len, 44 + 5 * 8 + 12);
	}
	assert_int_equal(n_found, 3);
}

static uint64_t echo_read(void *owner, uint64_t off, unsigned len)
{
	(void)owner;
	return off << 8 | len;
}

static void echo_write(void *owner, uint64_t off, unsigned len, uint64_t value)
{
	*(uint64_t *)owner = off + len + value;
}

static void test_the_bus_asks_who_is_responsible(void **state)
{
	uint64_t seen = 0;
	struct bus bus = {0};

	(void)state;
	bus_add(&bus, &(struct bus_region){0x1000, 0x10, echo_read, echo_write, &seen});
	assert_int_equal(bus_read(&bus, 0x100f, 4), 0xf04);
	assert_int_equal(bus_read(&bus, 0x1010, 4), UINT64_MAX);
	assert_int_equal(bus_read(&bus, 0xfff, 4), UINT64_MAX);
	bus_write(&bus, UINT64_MAX, 4, 1);
	assert_int_equal(seen, 0);
	bus_write(&bus, 0x1001, 2, 100);
	assert_int_equal(seen, 103);
}

static void test_the_last_lines_are_kept(void **state)
{
	struct tail tail = {0};
	char many[1000];

	(void)state;
	memset(many, 'x', sizeof(many));
	tail_add(&tail, "one\r\n\ntwo", 9);
	assert_int_equal(tail.n_lines, 1);
	assert_string_equal(tail.lines[0], "one");
	tail_add(&tail, many, sizeof(many));
	assert_true(tail.n_lines > 5 && !tail.panicked);
	for (int i = 0; i < 1000; i++)
		tail_add(&tail, "\nKernel panic - not syncing: x\n", 31);
	assert_true(tail.panicked);
}

static int parse(struct options *o, struct pil_err *err, const char *const *args)
{
	char words[16][64], *argv[17] = {0};
	int argc = 0;

	for (; args[argc]; argc++) {
		snprintf(words[argc], sizeof(words[0]), "%s", args[argc]);
		argv[argc] = words[argc];
	}
	optind = 0;
	return options_parse(o, argc, argv, err);
}
#define PARSE(o, err, ...) parse(o, err, (const char *const[]){"vmm", __VA_ARGS__, NULL})

static void test_options_are_read(void **state)
{
	struct options o;
	struct pil_err err;

	(void)state;
	assert_int_equal(PARSE(&o, &err, "--kernel", "k", "--memory", "64", "--cpus", "4", "--disk",
			       "a,b", "--disk", "c,ro", "--vsock-listen", "5:1024"),
			 0);
	assert_int_equal(o.memory_mib, 64);
	assert_int_equal(o.n_vcpus, 4);
	assert_int_equal(o.n_disks, 2);
	assert_false(o.disks[0].read_only);
	assert_true(o.disks[1].read_only);
	assert_int_equal(o.listens[0].fd, 5);
	assert_int_equal(o.listens[0].port, 1024);
	assert_true(o.jail);
}

static void test_bad_options_are_named(void **state)
{
	struct options o;
	struct pil_err err;

	(void)state;
	assert_int_equal(PARSE(&o, &err, "--kernel", "k", "--cpus", "0"), -EINVAL);
	assert_non_null(strstr(err.msg, "--cpus"));
	assert_int_equal(PARSE(&o, &err, "--kernel", "k", "--memory", "1"), -EINVAL);
	assert_int_equal(PARSE(&o, &err, "--kernel", "k", "--fs", "tag"), -EINVAL);
	assert_int_equal(PARSE(&o, &err, "--kernel", "k", "--vsock-connect", "1:x"), -EINVAL);
	assert_int_equal(PARSE(&o, &err, "--kernel", "k", "--vsock-listen", "x:1"), -EINVAL);
	assert_int_equal(PARSE(&o, &err, "--kernel", "k", "--net-fd", "999999"), -EINVAL);
	assert_int_equal(PARSE(&o, &err, "--kernel", "k", "--what"), -EINVAL);
	assert_int_equal(PARSE(&o, &err, "--kernel", "k", "what"), -EINVAL);
	assert_int_equal(PARSE(&o, &err, "--memory", "64"), -EINVAL);
	assert_non_null(strstr(err.msg, "--kernel"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_kernel_lies_where_it_wants, setup_memory,
						teardown_memory),
		{"test_a_kernel_lies_where_it_wants_in_shared_memory",
		 test_a_kernel_lies_where_it_wants, setup_shared_memory, teardown_memory, NULL},
		cmocka_unit_test_setup_teardown(test_the_holes_of_a_kernel_are_zero, setup_memory,
						teardown_memory),
		{"test_the_holes_of_a_kernel_are_zero_in_shared_memory",
		 test_the_holes_of_a_kernel_are_zero, setup_shared_memory, teardown_memory, NULL},
		cmocka_unit_test_setup_teardown(test_a_bad_kernel_says_what_is_wrong, setup_memory,
						teardown_memory),
		{"test_a_bad_kernel_says_what_is_wrong_in_shared_memory",
		 test_a_bad_kernel_says_what_is_wrong, setup_shared_memory, teardown_memory, NULL},
		cmocka_unit_test_setup_teardown(test_too_long_a_command_line_is_refused,
						setup_memory, teardown_memory),
		cmocka_unit_test_setup_teardown(test_acpi_tables_add_up, setup_memory,
						teardown_memory),
		cmocka_unit_test(test_the_bus_asks_who_is_responsible),
		cmocka_unit_test(test_the_last_lines_are_kept),
		cmocka_unit_test(test_options_are_read),
		cmocka_unit_test(test_bad_options_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
