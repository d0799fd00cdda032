/* SPDX-License-Identifier: Apache-2.0
 *
 * Theory of operation: the segments of the kernel are read from the file to where they belong, but
 * for its holes: what is not written is zero, as all of the guest's memory is at first.  They are
 * read rather than mapped, because what is mapped from a file lies in small pages, which cost the
 * guest more than the reading does, and a peer that shares the memory would not see it.  The initrd
 * goes to the end of the memory below 4 GiB, where no kernel looks for free memory first.
 *
 * PVH: an ELF note gives the address of a 32-bit entry point; ebx points to struct hvm_start_info,
 * which points to the command line, the initrd (its only module), the list of memory and the ACPI
 * tables.  The structures below are the protocol's; <xen/...> does not ship with libc. */
#include "vmm/arch/x86_64/boot.h"

#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/arch/x86_64/layout.h"

enum {
	MAX_SEGMENTS = 64,
	MAX_NOTE_BYTES = 64 << 10,
	NOTE_PHYS32_ENTRY = 18, /* XEN_ELFNOTE_PHYS32_ENTRY */
	START_MAGIC = 0x336ec578,
	MEMORY_RAM = 1,
	MEMORY_RESERVED = 2,
	PAGE = 4096,
};

struct start_info { /* struct hvm_start_info, version 1 */
	uint32_t magic, version, flags, n_modules;
	uint64_t modules_gpa, cmdline_gpa, rsdp_gpa, memory_gpa;
	uint32_t n_memory, reserved;
};

struct start_module {
	uint64_t gpa, bytes, cmdline_gpa, reserved;
};

struct start_memory {
	uint64_t gpa, bytes;
	uint32_t type, reserved;
};

struct start_page { /* what lies at LAYOUT_START_INFO */
	struct start_info info;
	struct start_module module;
	struct start_memory memory[8];
};

struct image {
	struct guest_mem *mem;
	const char *path;
	int fd;
	uint64_t end_gpa; /* of the highest segment */
	uint32_t entry_gpa;
};

/* Reads exactly @len bytes at @off; a file that ends before is a bad file. */
static int read_at(int fd, void *to, uint64_t len, uint64_t off)
{
	uint8_t *p = to;

	if (off > INT64_MAX || len > INT64_MAX - off)
		return -ENOEXEC;
	while (len) {
		ssize_t n = pread(fd, p, len < INT_MAX ? len : INT_MAX / 2, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENOEXEC;
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* The same into memory that is still zero: but for the file's holes. */
static int read_data(int fd, uint8_t *to, uint64_t len, uint64_t off)
{
	uint64_t end = off + len, hole = off;
	struct stat st;

	if (!len)
		return 0;
	if (fstat(fd, &st) || off > (uint64_t)st.st_size || len > (uint64_t)st.st_size - off)
		return -ENOEXEC;
	while (hole < end) {
		off_t at = lseek(fd, (off_t)hole, SEEK_DATA);
		uint64_t data = (uint64_t)at;
		int ret;

		if (at < 0 && errno == ENXIO) /* none until the end of the file */
			return 0;
		at = at < 0 ? at : lseek(fd, at, SEEK_HOLE);
		if (at < 0)
			return -errno;
		hole = (uint64_t)at < end ? (uint64_t)at : end;
		if (data >= hole)
			return 0;
		ret = read_at(fd, to + (data - off), hole - data, data);
		if (ret)
			return ret;
	}
	return 0;
}

static int bad_image(const struct image *image, int code, const char *what, struct pil_err *err)
{
	pil_err_hint(err, "kernel= takes an uncompressed vmlinux; 'pillion --update' makes one");
	if (code != -ENOEXEC)
		return pil_err_set(err, -code, "read kernel '%s'", image->path);
	return pil_err_say(err, ENOEXEC, "kernel '%s': %s", image->path, what);
}

static int load_segment(struct image *image, const Elf64_Phdr *ph, struct pil_err *err)
{
	uint64_t room = ph->p_memsz > ph->p_filesz ? ph->p_memsz : ph->p_filesz;
	void *to;
	int ret;

	if (!room)
		return 0;
	to = ph->p_paddr < LAYOUT_HIGH ? NULL : guest_mem_at(image->mem, ph->p_paddr, room);
	if (!to || ph->p_paddr >= LAYOUT_HOLE)
		return pil_err_say(err, ENOEXEC,
				   "kernel '%s': a segment of %llu bytes at %#llx is outside the "
				   "guest's memory",
				   image->path, (unsigned long long)room,
				   (unsigned long long)ph->p_paddr);
	ret = read_data(image->fd, to, ph->p_filesz, ph->p_offset);
	if (ret)
		return bad_image(image, ret, "ends in the middle of a segment", err);
	if (ph->p_paddr + room > image->end_gpa)
		image->end_gpa = ph->p_paddr + room;
	return 0;
}

/* Looks for the entry in the notes of @ph. */
static int read_notes(struct image *image, const Elf64_Phdr *ph, struct pil_err *err)
{
	uint8_t notes[4096];
	uint64_t left = ph->p_filesz < sizeof(notes) ? ph->p_filesz : sizeof(notes), at = 0;
	int ret = read_at(image->fd, notes, left, ph->p_offset);

	if (ret)
		return bad_image(image, ret, "ends in the middle of its notes", err);
	while (left - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		uint64_t name, desc;

		memcpy(&n, notes + at, sizeof(n));
		name = at + sizeof(n);
		desc = name + (((uint64_t)n.n_namesz + 3) & ~3ull);
		at = desc + (((uint64_t)n.n_descsz + 3) & ~3ull);
		if (at > left)
			break;
		if (n.n_type == NOTE_PHYS32_ENTRY && n.n_namesz == 4 && n.n_descsz >= 4 &&
		    !memcmp(notes + name, "Xen", 4))
			memcpy(&image->entry_gpa, notes + desc, sizeof(image->entry_gpa));
	}
	return 0;
}

static int load_kernel(struct image *image, struct pil_err *err)
{
	Elf64_Phdr ph[MAX_SEGMENTS] = {0};
	Elf64_Ehdr eh = {0};
	int ret = read_at(image->fd, &eh, sizeof(eh), 0);

	if (ret || memcmp(eh.e_ident, ELFMAG, SELFMAG) || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh.e_ident[EI_DATA] != ELFDATA2LSB || eh.e_machine != EM_X86_64)
		return bad_image(image, ret ? ret : -ENOEXEC, "not an ELF file for x86-64", err);
	if (eh.e_phentsize != sizeof(ph[0]) || eh.e_phnum == 0 || eh.e_phnum > MAX_SEGMENTS)
		return bad_image(image, -ENOEXEC, "no table of segments as we know it", err);
	ret = read_at(image->fd, ph, sizeof(ph[0]) * eh.e_phnum, eh.e_phoff);
	if (ret)
		return bad_image(image, ret, "ends before its table of segments", err);
	for (unsigned i = 0; i < eh.e_phnum && !ret; i++) {
		if (ph[i].p_type == PT_LOAD)
			ret = load_segment(image, &ph[i], err);
		else if (ph[i].p_type == PT_NOTE)
			ret = read_notes(image, &ph[i], err);
	}
	if (!ret && (image->entry_gpa < LAYOUT_HIGH || image->entry_gpa >= image->end_gpa))
		return bad_image(image, -ENOEXEC, "has no PVH entry (CONFIG_PVH)", err);
	return ret;
}

static int load_initrd(const struct boot_opts *opts, const struct image *image,
		       struct start_module *module, struct pil_err *err)
{
	const struct guest_mem_range *low = &image->mem->ranges[0];
	struct stat st;
	uint64_t room;
	int ret;

	if (fstat(opts->initrd_fd, &st) || st.st_size <= 0)
		return pil_err_say(err, EINVAL, "initrd '%s' is empty", opts->initrd);
	room = low->len_bytes - ((image->end_gpa + PAGE - 1) & ~(PAGE - 1ull));
	if (image->end_gpa > low->len_bytes || (uint64_t)st.st_size > room)
		return pil_err_say(err, EFBIG, "initrd '%s' does not fit in the guest's memory",
				   opts->initrd);
	module->bytes = (uint64_t)st.st_size;
	module->gpa = (low->len_bytes - module->bytes) & ~(PAGE - 1ull);
	ret = read_data(opts->initrd_fd, low->host + module->gpa, module->bytes, 0);
	return ret ? pil_err_set(err, -ret, "read initrd '%s'", opts->initrd) : 0;
}

static void list_memory(const struct guest_mem *mem, struct start_page *page)
{
	struct start_memory list[] = {
		{0, LAYOUT_LOW_END, MEMORY_RAM, 0},
		{LAYOUT_LOW_END, LAYOUT_HIGH - LAYOUT_LOW_END, MEMORY_RESERVED, 0},
		{LAYOUT_HIGH, mem->ranges[0].len_bytes - LAYOUT_HIGH, MEMORY_RAM, 0},
		{LAYOUT_ECAM, LAYOUT_ECAM_BYTES, MEMORY_RESERVED, 0},
		{LAYOUT_HOLE_END, mem->n_ranges > 1 ? mem->ranges[1].len_bytes : 0, MEMORY_RAM, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		if (list[i].bytes)
			page->memory[page->info.n_memory++] = list[i];
}

int boot_load(struct guest_mem *mem, const struct boot_opts *opts, struct boot_entry *entry,
	      struct pil_err *err)
{
	struct image image = {.mem = mem, .path = opts->kernel, .fd = opts->kernel_fd};
	size_t cmdline_bytes = strlen(opts->cmdline) + 1;
	char *cmdline = guest_mem_at(mem, LAYOUT_CMDLINE, cmdline_bytes);
	struct start_page page = {
		.info = {
			.magic = START_MAGIC,
			.version = 1,
			.cmdline_gpa = LAYOUT_CMDLINE,
			.rsdp_gpa = opts->rsdp_gpa,
			.memory_gpa = LAYOUT_START_INFO + offsetof(struct start_page, memory),
		}};
	int ret = load_kernel(&image, err);

	if (ret)
		return ret;
	if (!cmdline || cmdline_bytes > PAGE)
		return pil_err_say(err, E2BIG, "the kernel's command line is longer than %d bytes",
				   PAGE - 1);
	memcpy(cmdline, opts->cmdline, cmdline_bytes);
	if (opts->initrd) {
		ret = load_initrd(opts, &image, &page.module, err);
		if (ret)
			return ret;
		page.info.n_modules = 1;
		page.info.modules_gpa = LAYOUT_START_INFO + offsetof(struct start_page, module);
	}
	list_memory(mem, &page);
	memcpy(mem->ranges[0].host + LAYOUT_START_INFO, &page, sizeof(page));
	*entry = (struct boot_entry){image.entry_gpa, LAYOUT_START_INFO};
	return 0;
}
